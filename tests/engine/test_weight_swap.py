"""The real vLLM: a verified swap equals a fresh engine, and a stale one is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from src.engine.weight_probe import measure_probe, read_probe, write_probe
from src.training.policy import load_policy, save_policy
from tests.conftest import TINY_BASE, two_layer_model
from tests.engine.engine_process import (
    fresh_logprobs,
    in_engine_process,
    sampled,
    swapped_logprobs,
    tiny_config,
    verified_loads,
)
from tests.unit.training.test_parallel import run_processes

pytestmark = pytest.mark.engine
TEXT = "Compute $12+30$. $12+30=42$. The answer is $\\boxed{42}$. </think> <answer> 42 </answer>"


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def checkpoints(request, tokenizer, tmp_path_factory):
    """Two checkpoints of one architecture with different weights, and token ids to score."""
    folders = []
    for seed in (0, 1):
        model = two_layer_model(tokenizer, tied=request.param, seed=seed)
        folder = tmp_path_factory.mktemp(f"model{seed}")
        save_policy(model, tokenizer, folder)
        write_probe(folder, measure_probe(model, tokenizer, model.device))
        folders.append(folder)
    ids = [tokenizer(TEXT)["input_ids"], tokenizer(TEXT[8:])["input_ids"]]
    return folders[0], folders[1], ids


def test_after_a_swap_logprobs_equal_those_of_a_fresh_engine(checkpoints):
    first, second, ids = checkpoints
    fresh = in_engine_process(fresh_logprobs, second, ids)
    swapped = in_engine_process(swapped_logprobs, first, second, ids)
    assert swapped == fresh  # to the bit


def test_a_first_model_that_stores_its_tied_output_layer_twice_leaves_nothing_behind(
    tokenizer, tmp_path
):
    """vLLM unties such a model, and a checkpoint without the second copy must still fill it."""
    ids = [tokenizer(TEXT)["input_ids"]]
    for seed in (0, 1):
        save_policy(
            two_layer_model(tokenizer, tied=True, seed=seed), tokenizer, tmp_path / str(seed)
        )
    weights = load_file(tmp_path / "0" / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "0" / "model.safetensors", metadata={"format": "pt"})
    swapped = in_engine_process(swapped_logprobs, tmp_path / "0", tmp_path / "1", ids)
    fresh = in_engine_process(fresh_logprobs, tmp_path / "1", ids)
    assert np.allclose(swapped[0], fresh[0], atol=0.05)


def test_good_swaps_are_verified(checkpoints):
    first, second, _ = checkpoints
    assert in_engine_process(verified_loads, first, second, "nothing") == ["verified", "verified"]


@pytest.fixture(scope="module")
def one_small_step(tokenizer, tmp_path_factory):
    """The tiny base and the same after an update far smaller than the tolerance."""
    torch.manual_seed(0)
    model = load_policy(str(TINY_BASE), tiny_config())
    folders = []
    for name in ("before", "after"):
        folder = tmp_path_factory.mktemp(name)
        save_policy(model, tokenizer, folder)
        write_probe(folder, measure_probe(model, tokenizer, model.device))
        folders.append(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1e-3 * torch.randn_like(parameter).sign()
    return folders


@pytest.mark.parametrize(
    ("plant", "stale"),
    [("nothing", False), ("swap does nothing", True), ("output layer stays", True)],
)
def test_what_stays_old_after_a_small_update_is_caught(one_small_step, plant, stale):
    first, second = one_small_step
    change = read_probe(second).gap(read_probe(first).logprobs)
    assert change < 0.1  # the tolerance that is shipped; the gap alone would pass
    said = in_engine_process(verified_loads, first, second, plant)
    assert said[0] == "verified"
    assert ("hold other weights" in said[1]) == stale, said[1]


def test_weights_written_in_the_wrong_type_are_caught(tokenizer, tmp_path):
    """The bytes of one type read as another: every file is whole, and every value wrong."""
    model = load_policy(str(TINY_BASE), tiny_config())
    for name in ("right", "wrong"):
        save_policy(model, tokenizer, tmp_path / name)
        write_probe(tmp_path / name, measure_probe(model, tokenizer, model.device))
    file = tmp_path / "wrong" / "model.safetensors"
    weights = {name: t.view(torch.float16).clone() for name, t in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    said = in_engine_process(verified_loads, tmp_path / "right", tmp_path / "wrong", "nothing")
    assert "off by" in said[1]


def test_a_checkpoint_with_another_tokenizer_is_caught(tokenizer, tmp_path):
    model = load_policy(str(TINY_BASE), tiny_config())
    for name in ("right", "wrong"):
        save_policy(model, tokenizer, tmp_path / name)
        write_probe(tmp_path / name, measure_probe(model, tokenizer, model.device))
    probe = read_probe(tmp_path / "wrong")
    shifted = [[(token + 1) % len(tokenizer) for token in row] for row in probe.ids]
    write_probe(tmp_path / "wrong", replace(probe, ids=shifted))
    said = in_engine_process(verified_loads, tmp_path / "right", tmp_path / "wrong", "nothing")
    assert "tokenizer" in said[1]


def test_the_engine_starts_on_a_checkpoint_that_two_shards_wrote(tokenizer, tmp_path):
    run_processes(2, "sharded", tmp_path / "two")
    folder = tmp_path / "two" / "step_000003"
    ids = [tokenizer(TEXT)["input_ids"]]
    (found,) = in_engine_process(fresh_logprobs, folder, ids)
    model = load_policy(str(folder), tiny_config())
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor(ids)).logits[0, :-1].log_softmax(-1)
    expected = logprobs.gather(1, torch.tensor(ids[0][1:])[:, None])[:, 0]
    assert np.abs(np.array(found) - expected.numpy()).mean() < 0.1


def test_saved_weights_are_bfloat16_and_complete(checkpoints):
    with safe_open(checkpoints[0] / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_seeds_decide_samples_and_nothing_else_does(tokenizer):
    prompt = tokenizer("Problem: Compute $34-57+12$.\nSolution:")["input_ids"]
    group = in_engine_process(sampled, TINY_BASE, [prompt] * 4, [1, 2, 3, 4])
    assert len({tuple(ids) for ids in group}) > 1
    alone = in_engine_process(sampled, TINY_BASE, [prompt], [3])
    assert alone[0] == group[2]

"""The pass through the largest micro-batch before the first step: for nothing, and told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import src.training_worker as training_worker
from src.config.loading import load_config
from src.grpo.callback import StageCallback, pass_through
from src.run.files import read_jsonl
from src.run.metrics import JsonlSink, MetricLog
from src.stages.out_of_memory import explain, find_shortage
from src.training.batching import largest_micro_batch, micro_batches, shuffled_steps
from src.training.memory_rehearsal import rehearse_memory, rehearses
from src.training.optimization import build_optimizer, room_for_moments
from tests.conftest import two_layer_model
from tests.unit.grpo.test_losses import build, generated
from tests.unit.training.test_training import Recorder, make_examples, settings, trained

CUDA_TEXT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 39.39 GiB."


@pytest.fixture
def examples(tokenizer):
    return make_examples(tokenizer)


def test_fine_tuning_is_the_same_to_the_bit(tokenizer, examples, tmp_path):
    seen = {}
    for asked in ("off", "on"):
        sink, config = Recorder(), settings(micro_batch_size=2, memory_rehearsal=asked)
        model = trained(tokenizer, examples, tmp_path / asked, config, sink=sink)
        losses = [row["train/loss"] for row in sink.rows if "train/loss" in row]
        norms = [row["train/grad_norm"] for row in sink.rows if "train/loss" in row]
        rehearsed = [row["step"] for row in sink.rows if "system/rehearsal_s" in row]
        seen[asked] = losses, norms, torch.get_rng_state(), model.state_dict(), rehearsed
    for off, on in zip(seen["off"][:2], seen["on"][:2], strict=True):
        assert off == on
    assert torch.equal(seen["off"][2], seen["on"][2])
    assert all(torch.equal(tensor, seen["on"][3][name]) for name, tensor in seen["off"][3].items())
    assert (seen["off"][4], seen["on"][4]) == ([], [0])


def test_the_largest_micro_batch_is_the_largest_that_any_step_has(examples):
    steps = list(shuffled_steps(examples, 7, 2 * len(examples), seed=1))
    sizes = [
        sum(len(example.ids) for example in group)
        for step in steps
        for share in micro_batches(step, 200, 2)
        for group in share
    ]
    largest = largest_micro_batch(steps, 200, 2)
    assert sum(len(example.ids) for example in largest) == max(sizes)


def test_a_pass_of_grpo_leaves_gradients_random_numbers_and_loss_as_they_were(tokenizer, tmp_path):
    trainer = build(tokenizer, tmp_path, "dapo")
    inputs = generated(trainer)

    def loss_and_norm():
        loss = trainer._compute_loss(trainer.model, dict(inputs))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1e9)
        trainer.model.zero_grad(set_to_none=True)
        return loss.item(), norm.item()

    before, random, rows = loss_and_norm(), torch.get_rng_state(), []
    scored = trainer._scored
    trainer._scored = lambda *given: rows.append(given[1].shape) or scored(*given)
    trainer.create_optimizer()
    longest = trainer.source.longest_prompt
    optimizer, device = trainer.optimizer, trainer.accelerator.device
    taken = rehearse_memory(
        lambda: pass_through(trainer, longest), optimizer, "adamw", device, "8 completions"
    )
    assert list(taken) == ["system/rehearsal_s"]
    assert rows == [(8, longest + 60)]
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert not optimizer.state
    assert torch.equal(torch.get_rng_state(), random)
    trainer._scored = scored
    assert loss_and_norm() == before


@pytest.mark.parametrize("step", [0, 2])
def test_grpo_logs_what_its_rehearsal_took(tokenizer, tmp_path, monkeypatch, step):
    trainer = build(tokenizer, tmp_path, "dapo", **{"grpo.memory_rehearsal": "on"})
    trainer.create_optimizer()
    monkeypatch.setattr(StageCallback, "_validate", lambda *_: None)
    with MetricLog([JsonlSink(tmp_path, {})]) as metrics:
        metrics.log({"train/loss": 1.0}, step=step + 1)  # of a run that was cut short
        callback = StageCallback(trainer, metrics, None, None)
        callback.on_train_begin(None, SimpleNamespace(global_step=step), None)
    (row,) = read_jsonl(tmp_path / "metrics.jsonl")
    assert row["step"] == step
    assert row["system/rehearsal_s"] > 0


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "adamw_bf16_kahan"])
def test_room_is_held_for_the_moments_that_come_with_the_first_step(tokenizer, name):
    dtype = torch.bfloat16 if name.endswith("kahan") else torch.float32
    model = two_layer_model(tokenizer, tied=True).to(dtype)
    optimizer = build_optimizer(model, settings(optimizer=name))
    room = sum(item.numel() * item.element_size() for item in room_for_moments(optimizer, name))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert room / count == {"adamw": 8, "adamw_8bit": 2, "adamw_bf16_kahan": 6}[name]
    optimizer.state[model.lm_head.weight] = {"step": 1}
    assert room_for_moments(optimizer, name) == []


def test_memory_that_runs_out_in_it_is_told_as_such(tokenizer, examples, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError(CUDA_TEXT)

    monkeypatch.setattr(training_worker, "summed_nll", full)
    config = settings(micro_batch_size=2, memory_rehearsal="on")
    with pytest.raises(torch.OutOfMemoryError) as caught:
        trained(tokenizer, examples, tmp_path, config)
    shortage = find_shortage(caught.value)
    assert shortage.kind == "out"
    said = explain("step2_sft", load_config(["config/sft_config.yaml"]), shortage, None)
    assert "memory ran out in the rehearsal of the largest micro-batch (8 sequences, " in said
    assert "tokens), before a first step was logged, in its own process: " in said
    assert "(1) --set train.micro_batch_size=4" in said


def test_auto_rehearses_where_memory_can_run_out():
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    asked = {name: (rehearses(name, cpu), rehearses(name, gpu)) for name in ("auto", "on", "off")}
    assert asked == {"auto": (False, True), "on": (True, True), "off": (False, False)}

"""Float16 on cards without bfloat16: who gets it, what is said, and a loss that is scaled."""

from __future__ import annotations

import logging

import pytest
import torch

from src import training_worker
from src.config.loading import ConfigError, load_config
from src.config.training import ComputeType
from src.stages import cards
from src.training.parallel import ParallelPolicy, autocast_to
from tests.unit.training.test_training import Recorder, make_examples, settings, trained

CPU = torch.device("cpu")


def configured(*settings):
    return load_config(["config/sft_config.yaml"], settings)


def with_cards(monkeypatch, *capabilities):
    monkeypatch.setattr(cards, "visible_gpus", lambda: list("0123"[: len(capabilities)]))
    monkeypatch.setattr(cards, "gpu_capabilities", lambda names: capabilities if names else [])


def test_float16_comes_where_a_card_has_no_bfloat16_and_a_line_says_so(monkeypatch, caplog):
    with_cards(monkeypatch, 8.6, 7.5)
    with caplog.at_level(logging.WARNING):
        changed = cards.with_float16(configured())
    assert (changed.engine.dtype, changed.train.compute_dtype) == ("float16", "float16")
    assert [record.getMessage() for record in caplog.records] == [
        "a GPU of compute capability 7.5 has no bfloat16 (that is since 8.0): float16 for "
        "engine.dtype and train.compute_dtype"
    ]
    exact = cards.with_float16(configured("engine.dtype=float32"))
    assert (exact.engine.dtype, exact.train.compute_dtype) == ("float32", "float16")


def test_nothing_changes_on_newer_cards_on_a_cpu_and_where_no_card_can_be_asked(monkeypatch):
    given = configured()
    for capabilities in ((8.0, 9.0), ()):
        with_cards(monkeypatch, *capabilities)
        assert cards.with_float16(given) is given
    with_cards(monkeypatch, 7.5)
    on_cpu = configured("devices.train=cpu", "devices.eval=cpu")
    assert cards.with_float16(on_cpu) is on_cpu


@pytest.mark.parametrize(
    ("capability", "given", "remedy"),
    [(7.0, (), "float32"), (9.0, ("train.compute_dtype=float16",), "bfloat16")],
)
def test_sharded_float16_is_refused_with_the_remedy(monkeypatch, capability, given, remedy):
    with_cards(monkeypatch, capability)
    monkeypatch.setattr(cards, "launched_sharding", lambda: "fsdp")
    with pytest.raises(ConfigError, match=rf"float16 wants a scaled.*compute_dtype={remedy}"):
        cards.with_float16(configured(*given))
    other = cards.with_float16(configured(f"train.compute_dtype={remedy}"))
    assert other.train.compute_dtype == remedy


def one_step(
    factor: float, kind: ComputeType
) -> tuple[torch.Tensor, torch.Tensor, float, ParallelPolicy]:
    """Return a layer's weights before and after a step, the gradient norm, and the policy."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    policy = ParallelPolicy(layer, optimizer, CPU, 1.0, scaled=kind == "float16")
    before = layer.weight.detach().clone()
    with autocast_to(kind, CPU):
        loss = (layer(torch.ones(4, 8)).float() * factor).sum()
    policy.backward(loss)
    norm = policy.clip_gradients(1e9)
    policy.update()
    return before, layer.weight.detach(), norm, policy


def test_the_scale_is_out_of_a_step_before_gradients_are_clipped():
    before, after, norm, policy = one_step(1e-7, "float16")
    assert policy.scaler.is_enabled()
    # d loss / d weight is 4e-7 everywhere, which float16 itself could not hold to 5 %.
    assert norm == pytest.approx(4e-7 * 8, rel=0.05)
    assert torch.allclose(before - after, torch.full((8, 8), 4e-8), rtol=0.3, atol=1e-9)


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_halved():
    before, after, norm, policy = one_step(1e4, "float16")
    assert not torch.isfinite(torch.tensor(norm))
    assert torch.equal(before, after)
    assert policy.scaler.get_scale() == 2.0**15
    assert policy.scaler.state_dict()["scale"] == 2.0**15


def test_bfloat16_scales_nothing():
    _, _, _, policy = one_step(1.0, "bfloat16")
    assert not policy.scaler.is_enabled()
    assert policy.scaler.state_dict() == {}


def losses_of(sink: Recorder) -> list[float]:
    return [row["train/loss"] for row in sink.rows if "train/loss" in row]


def test_fine_tuning_in_float16_learns_what_float32_does_and_resumes(tokenizer, tmp_path):
    examples, losses = make_examples(tokenizer), {}
    for name in ("float16", "float32"):
        sink = Recorder()
        config = settings(compute_dtype=name)
        trained(tokenizer, examples, tmp_path / name, config, sink=sink)
        losses[name] = losses_of(sink)
    assert losses["float16"] == pytest.approx(losses["float32"], rel=2e-3)
    assert losses["float16"][-1] < losses["float16"][0]
    config, sink = settings(compute_dtype="float16"), Recorder()
    trained(tokenizer, examples, tmp_path / "cut", config, stop_after=1)
    trained(tokenizer, examples, tmp_path / "cut", config, resume=True, sink=sink)
    assert losses_of(sink) == losses["float16"][1:]


def test_gradients_that_overflow_under_every_scale_end_the_run(tokenizer, tmp_path, monkeypatch):
    clip = ParallelPolicy.clip_gradients
    monkeypatch.setattr(ParallelPolicy, "clip_gradients", lambda *a: clip(*a) * float("nan"))
    monkeypatch.setattr(training_worker, "_MOST_LEFT_OUT", 1)
    examples, config = make_examples(tokenizer), settings(compute_dtype="float16")
    with pytest.raises(FloatingPointError, match=r"step 2: .*gradient norm nan.*compute_dtype"):
        trained(tokenizer, examples, tmp_path, config)

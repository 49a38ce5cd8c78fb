"""The SFT loop against computations by hand: masks, loss, micro-batches, schedule, resuming."""

from __future__ import annotations

import pytest
import torch

from src.batching import build_sft_examples, micro_batches, shuffled_steps
from src.checkpoints import CheckpointStore
from src.config_schema import TrainConfig
from src.losses import summed_nll
from src.metric_log import MetricLog
from src.prompts import load_prompt
from src.training_worker import (
    EarlyStopping,
    Schedule,
    SftTrainer,
    build_optimizer,
    learning_rate_factor,
)
from tests.conftest import two_layer_model
from utils.problem import Problem
from utils.problem_generator import generate_problems


class Recorder:
    """A sink that remembers."""

    def __init__(self):
        self.rows = []

    def log(self, values, step):
        self.rows.append({"step": step, **values})

    def samples(self, rows, step):
        pass

    def close(self, summary):
        pass


@pytest.fixture
def examples(tokenizer):
    prompt = load_prompt("prompts/rl_zero.prompt")
    return build_sft_examples(
        generate_problems(24, "train", 1), prompt, tokenizer, max_tokens=512
    ).examples


def settings(**values):
    defaults = {
        "batch_size": 8,
        "micro_batch_size": 8,
        "epochs": 1,
        "learning_rate": 1e-3,
        "gradient_checkpointing": False,
        "bf16_autocast": False,
    }
    return TrainConfig(**(defaults | values))


def trained(tokenizer, examples, folder, config, *, resume=False, stop_after=None, sink=None):
    model = two_layer_model(tokenizer, tied=True)
    store = CheckpointStore(folder, keep=1)
    trainer = SftTrainer(model, tokenizer, config, store, MetricLog([sink or Recorder()]), seed=5)
    schedule = Schedule(3, frozenset({1, 3}), 24)
    for checkpoint in trainer.train(examples, schedule, resume=resume):
        if checkpoint.step == stop_after:
            break
    return model


def test_targets_end_in_the_end_of_text_token_and_leave_the_prompt_out(tokenizer, examples):
    batch = next(micro_batches(examples[:3], 3, tokenizer.pad_token_id, torch.device("cpu")))
    by_length = sorted(examples[:3], key=lambda example: len(example.ids))
    for row, example in enumerate(by_length):
        wanted = [example.prompt_tokens <= i < len(example.ids) for i in range(batch.ids.shape[1])]
        assert batch.targets[row].tolist() == wanted
        assert example.ids[-1] == tokenizer.eos_token_id
    text = tokenizer.decode(by_length[0].ids[by_length[0].prompt_tokens :])
    assert "</think> <answer>" in text
    assert text.endswith("</answer><|endoftext|>")


def test_loss_equals_a_float64_computation_by_hand(tokenizer, examples, tiny_model):
    batch = next(micro_batches(examples[:4], 4, tokenizer.pad_token_id, torch.device("cpu")))
    ours = summed_nll(tiny_model, batch).item()
    double = tiny_model.double()
    expected = 0.0
    for example in examples[:4]:
        logits = double(input_ids=torch.tensor([example.ids])).logits[0]
        for position in range(example.prompt_tokens, len(example.ids)):
            row = logits[position - 1]
            expected += (torch.logsumexp(row, 0) - row[example.ids[position]]).item()
    assert ours == pytest.approx(expected, rel=1e-5)


def test_gradient_does_not_depend_on_the_cut(tokenizer, examples):
    gradients = []
    for size in (8, 4, 1):
        model = two_layer_model(tokenizer, tied=True)
        tokens = sum(len(example.ids) - example.prompt_tokens for example in examples[:8])
        for batch in micro_batches(examples[:8], size, tokenizer.pad_token_id, model.device):
            (summed_nll(model, batch) / tokens).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (gradients[0] - gradients[1]).abs().max() < 1e-6
    assert (gradients[0] - gradients[2]).abs().max() < 1e-6


def test_a_row_whose_target_does_not_grade_is_left_out(tokenizer):
    prompt = load_prompt("prompts/rl_zero.prompt")
    good = Problem("1+1?", "It is 2.", "2", 1, "a", "good")
    bad = Problem("1+1?", "See </think> <answer> 3 </answer>", "2", 1, "a", "bad")
    long = Problem("1+1?", "2 " * 400, "2", 1, "a", "long")
    built = build_sft_examples([good, bad, long], prompt, tokenizer, max_tokens=400)
    assert len(built.examples) == 1
    assert built.not_graded_correct == ["bad"]
    assert built.too_long == ["long"]


def test_every_example_is_seen_once_an_epoch(examples):
    batches = list(shuffled_steps(examples, 7, len(examples) * 2, seed=1))
    seen = [example for batch in batches for example in batch]
    assert len(seen) == 48
    assert sorted(e.ids for e in seen[:24]) == sorted(e.ids for e in examples)
    assert seen[:24] != seen[24:]
    assert batches == list(shuffled_steps(examples, 7, len(examples) * 2, seed=1))


def test_learning_rate_rises_and_falls_linearly():
    config = settings(warmup_share=0.2)
    factors = [learning_rate_factor(step, 10, config) for step in range(10)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[2:] == pytest.approx([(10 - step) / 8 for step in range(2, 10)])
    assert learning_rate_factor(10, 10, config) == 0.0


def test_only_matrices_are_decayed(tiny_model):
    optimizer = build_optimizer(tiny_model, settings(weight_decay=0.1))
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    embedding = tiny_model.get_input_embeddings().weight
    assert all(parameter is not embedding for parameter in decayed["params"])
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(tiny_model.parameters()))


def test_a_resumed_run_ends_in_the_same_weights(tokenizer, examples, tmp_path):
    config = settings()
    whole = trained(tokenizer, examples, tmp_path / "whole", config)
    trained(tokenizer, examples, tmp_path / "cut", config, stop_after=1)
    resumed = trained(tokenizer, examples, tmp_path / "cut", config, resume=True)
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_training_lowers_the_loss_and_logs_it(tokenizer, examples, tmp_path):
    sink = Recorder()
    trained(tokenizer, examples, tmp_path, settings(learning_rate=1e-2), sink=sink)
    losses = [row["train/loss"] for row in sink.rows]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert {"train/grad_norm", "train/target_tokens_per_s", "train/padding_rate"} <= set(
        sink.rows[0]
    )


def test_a_loss_that_is_not_finite_stops_with_a_remedy(tokenizer, examples, tmp_path):
    with pytest.raises(FloatingPointError, match=r"lower train\.learning_rate"):
        trained(tokenizer, examples, tmp_path, settings(learning_rate=1e30))


def test_early_stopping():
    stopping = EarlyStopping(patience=2, min_delta=0.01)
    assert [stopping.should_stop(score) for score in (0.1, 0.2, 0.205, 0.208)] == [
        False, False, False, True,
    ]  # fmt: skip


def test_checkpoints_are_kept_by_rule(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    saved = [
        store.save(step, step * 8, lambda folder: (folder / "w").write_text("x"))
        for step in (1, 2, 3, 4)
    ]
    assert [item.step for item in store.unscored()] == [1, 2, 3, 4]
    for checkpoint, score in zip(saved[:3], (0.1, 0.9, 0.2), strict=True):
        store.record(checkpoint, score)
    left = {path.name for path in tmp_path.glob("step_*")}
    assert left == {"step_000002", "step_000003", "step_000004"}  # best, latest, not yet scored
    assert store.best() == saved[1]
    assert CheckpointStore(tmp_path, keep=1).best_score() == 0.9


def test_a_failed_write_leaves_no_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)

    def fail(folder):
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.save(1, 8, fail)
    assert store.unscored() == []

"""The SFT loop against computations by hand: packing, loss, schedule, resuming, checkpoints."""

from __future__ import annotations

import math
import multiprocessing
import random
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.config.training import TrainConfig
from src.data.prompts import load_prompt
from src.run.files import read_jsonl
from src.run.metrics import JsonlSink, MetricLog
from src.sft.examples import build_examples
from src.sft.rows import rows_from_problems
from src.training.attention import packing_arguments
from src.training.batching import Example, micro_batches, pack, shuffled_steps
from src.training.checkpoints import (
    CheckpointStore,
)
from src.training.losses import add_chunked_loss, summed_nll, target_scores
from src.training.optimization import EarlyStopping, Schedule, build_optimizer, learning_rate_factor
from src.training.throughput import training_flops
from src.training_worker import SftTrainer
from tests.conftest import two_layer_model
from utils.data.problem_generator import generate_problems

CPU = torch.device("cpu")


class Recorder:
    """A sink that remembers."""

    def __init__(self):
        self.rows = []

    def log(self, values, step):
        self.rows.append({"step": step, **values})

    def samples(self, rows, step):
        pass

    def rewind(self, step):
        pass

    def close(self, summary):
        pass


@pytest.fixture
def examples(tokenizer):
    return make_examples(tokenizer)


def make_examples(tokenizer, count=24):
    prompt = load_prompt("prompts/rl_zero.prompt")
    rows = rows_from_problems(generate_problems(count, "train", 1), prompt)
    return build_examples(rows, tokenizer, max_tokens=512, keep="verified").examples


def packed_model(tokenizer, attention="packed"):
    model = two_layer_model(tokenizer, tied=True)
    model.set_attn_implementation(attention)
    add_chunked_loss(model)
    return model


def target_logits(model, attention, batch):
    """Logits (N, V) of a row's target tokens."""
    return model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        use_cache=False,
        **packing_arguments(attention, batch),
    ).logits[0, batch.predicts]


def settings(**values):
    defaults = {
        "batch_size": 8,
        "micro_batch_size": 8,
        "epochs": 1,
        "learning_rate": 1e-3,
        "gradient_checkpointing": False,
        "compute_dtype": "float32",
    }
    return TrainConfig(**(defaults | values))


def trained(
    tokenizer, examples, folder, config, *, resume=False, stop_after=None, sink=None, dtype=None
):
    model = packed_model(tokenizer).to(dtype or torch.float32)
    store = CheckpointStore(folder, keep=1)
    trainer = SftTrainer(model, tokenizer, config, store, MetricLog([sink or Recorder()]), seed=5)
    schedule = Schedule(3, frozenset({1, 3}), 24)
    for checkpoint in trainer.train(examples, schedule, resume=resume):
        if trainer.agree(checkpoint is not None and checkpoint.step == stop_after):
            break
    return model


# Packing


@pytest.mark.parametrize("attention", ["packed", "sdpa"])
def test_a_sequence_in_a_packed_row_has_the_logits_it_has_alone(tokenizer, examples, attention):
    model = packed_model(tokenizer, attention).eval()
    chosen = examples[:5]
    with torch.no_grad():
        together = target_logits(model, attention, pack(chosen, CPU))
        alone = [target_logits(model, attention, pack([item], CPU)) for item in chosen]
    assert (together - torch.cat(alone)).abs().max() < 1e-5


def test_prompts_and_neighbours_never_contribute(tokenizer, examples):
    """Changing one sequence changes no loss but its own."""
    model = packed_model(tokenizer).eval()
    first, second, third = examples[:3]
    other = examples[3]
    with torch.no_grad():
        before = target_logits(model, "packed", pack([first, second, third], CPU))
        after = target_logits(model, "packed", pack([first, other, third], CPU))
    ours, last = first.target_tokens, third.target_tokens
    assert torch.equal(before[:ours], after[:ours])
    assert (before[-last:] - after[-last:]).abs().max() < 1e-5
    batch = pack([first], CPU)
    assert batch.targets.tolist() == list(first.ids[first.prompt_tokens :])


def test_the_loss_equals_one_computed_by_hand_in_float64(tokenizer, examples):
    model = packed_model(tokenizer).double().eval()
    chosen = examples[:4]
    ours = summed_nll(model, "packed", pack(chosen, CPU)).item()
    expected = 0.0
    for example in chosen:
        logits = model(input_ids=torch.tensor([example.ids])).logits[0]
        for place in range(example.prompt_tokens, len(example.ids)):
            row = logits[place - 1]
            shifted = row - row.max()
            expected -= (shifted[example.ids[place]] - shifted.exp().sum().log()).item()
    assert ours == pytest.approx(expected, rel=1e-6)


def test_entropy_equals_one_computed_by_hand(tokenizer, examples):
    model, batch = packed_model(tokenizer).eval(), pack(examples[:3], CPU)
    with torch.no_grad():
        shares = target_logits(model, "packed", batch).double().softmax(-1)
    expected = torch.special.entr(shares).sum().item()
    found = target_scores(model, "packed", batch, entropy=True).entropy.item()
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_gradient_does_not_depend_on_the_cut(tokenizer, examples):
    step = examples[:8]
    tokens = sum(example.target_tokens for example in step)
    gradients = []
    longest = max(len(example.ids) for example in step)
    for room in (8 * longest, 4 * longest, 2 * longest, 1):
        model = packed_model(tokenizer)
        for group in micro_batches(step, room)[0]:
            (summed_nll(model, "packed", pack(group, CPU)) / tokens).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    for other in gradients[1:]:
        assert (gradients[0] - other).abs().max() < 1e-6


@pytest.mark.parametrize(("size", "processes"), [(8, 1), (3, 1), (2, 2), (4, 3)])
def test_every_example_of_a_step_is_computed_once(examples, size, processes):
    room = size * max(len(example.ids) for example in examples[:10])
    shares = micro_batches(examples[:10], room, processes)
    assert len(shares) == processes
    assert len({len(share) for share in shares}) == 1  # sharded weights are gathered in step
    groups = [group for share in shares for group in share]
    assert all(sum(len(example.ids) for example in group) <= room for group in groups)
    assert sorted(e.id for group in groups for e in group) == sorted(e.id for e in examples[:10])


def test_micro_batches_are_of_like_size(examples):
    whole = sum(len(example.ids) for example in examples)
    groups = micro_batches(examples, math.ceil(1.05 * whole / 4))[0]
    tokens = [sum(len(example.ids) for example in group) for group in groups]
    assert len(groups) == 4
    assert max(tokens) < 1.1 * min(tokens)


def of_lengths(*lengths: int) -> list[Example]:
    return [Example((1,) * length, 1, str(place)) for place, length in enumerate(lengths)]


def test_short_sequences_share_the_room_of_a_long_one():
    groups = micro_batches(of_lengths(100, 30, 30, 20, 10, 50, 40), 100)[0]
    sizes = sorted(sorted(len(example.ids) for example in group) for group in groups)
    assert sizes == [[10, 30, 50], [20, 30, 40], [100]]


def test_what_is_too_long_for_a_micro_batch_has_one_to_itself():
    groups = micro_batches(of_lengths(500, 40, 40), 100)[0]
    assert sorted(len(group) for group in groups if group) == [1, 2]


@given(
    lengths=st.lists(st.integers(1, 100), min_size=1, max_size=40),
    room=st.integers(1, 400),
    processes=st.integers(1, 4),
)
def test_no_micro_batch_is_fuller_than_it_may_be(lengths, room, processes):
    shares = micro_batches(of_lengths(*lengths), room, processes)
    groups = [group for share in shares for group in share]
    sizes = [sum(len(example.ids) for example in group) for group in groups]
    assert all(size <= room or len(group) == 1 for size, group in zip(sizes, groups, strict=True))
    assert sorted(int(e.id) for group in groups for e in group) == list(range(len(lengths)))
    assert len({len(share) for share in shares}) == 1


def test_every_example_is_seen_once_an_epoch(examples):
    batches = list(shuffled_steps(examples, 7, len(examples) * 2, seed=1))
    seen = [example for batch in batches for example in batch]
    assert len(seen) == 48
    assert sorted(e.ids for e in seen[:24]) == sorted(e.ids for e in examples)
    assert seen[:24] != seen[24:]
    assert batches == list(shuffled_steps(examples, 7, len(examples) * 2, seed=1))


def test_flops_of_a_step_by_hand(tokenizer):
    model = two_layer_model(tokenizer, tied=True)
    head = model.get_output_embeddings().weight.numel()
    body = sum(parameter.numel() for parameter in model.parameters()) - head
    flops = training_flops(model, [10, 20], 12)
    assert flops == 6 * (body * 30 + head * 12) + 6 * 2 * 64 * (100 + 400)
    model.config.head_dim = 128  # Qwen3's heads are together wider than its hidden states
    wider = training_flops(model, [10, 20], 12)
    assert wider - flops == 6 * 2 * (128 * model.config.num_attention_heads - 64) * (100 + 400)


# Optimization


def test_learning_rate_rises_and_falls_linearly():
    config = settings(warmup_share=0.2)
    factors = [learning_rate_factor(step, 10, config) for step in range(10)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[2:] == pytest.approx([(10 - step) / 8 for step in range(2, 10)])
    assert learning_rate_factor(10, 10, config) == 0.0


def test_only_matrices_are_decayed_unless_asked(tiny_model):
    optimizer = build_optimizer(tiny_model, settings(weight_decay=0.1))
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    embedding = tiny_model.get_input_embeddings().weight
    assert all(parameter is not embedding for parameter in decayed["params"])
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(tiny_model.parameters()))
    everything = build_optimizer(tiny_model, settings(weight_decay=0.1, decay_all=True))
    assert len(everything.param_groups) == 1


def test_early_stopping():
    stopping = EarlyStopping(patience=2, min_delta=0.01)
    assert [stopping.should_stop(score) for score in (0.1, 0.2, 0.205, 0.208)] == [
        False, False, False, True,
    ]  # fmt: skip


# Training


def test_a_resumed_run_ends_in_the_same_weights(tokenizer, examples, tmp_path):
    config = settings()
    whole = trained(tokenizer, examples, tmp_path / "whole", config)
    trained(tokenizer, examples, tmp_path / "cut", config, stop_after=1)
    resumed = trained(tokenizer, examples, tmp_path / "cut", config, resume=True)
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def _train_to_the_end(folder, overlap):
    """Train in a process that may be killed; resumes whatever is there."""
    from transformers import AutoTokenizer

    from tests.conftest import TINY_BASE

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    folder.mkdir(exist_ok=True)
    trainer = SftTrainer(
        packed_model(tokenizer),
        tokenizer,
        settings(batch_size=4, micro_batch_size=2),
        CheckpointStore(folder / "checkpoints", keep=1),
        MetricLog([JsonlSink(folder, {})]),
        seed=5,
        overlap=overlap,
    )
    schedule = Schedule(24, frozenset({*range(2, 25, 2)}), 96)
    for _ in trainer.train(make_examples(tokenizer), schedule, resume=True):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [False, True])
def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(tmp_path, overlap):
    context = multiprocessing.get_context("spawn")
    whole = context.Process(target=_train_to_the_end, args=(tmp_path / "whole", overlap))
    whole.start()
    whole.join()
    kills, place = 0, tmp_path / "killed"
    moments = random.Random(int(overlap))
    while True:
        process = context.Process(target=_train_to_the_end, args=(place, overlap))
        process.start()
        before = _lines(place)
        while process.is_alive() and kills < 2 and _lines(place) <= before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.15))
        if kills == 2 or not process.is_alive():
            process.join()
            break
        process.kill()
        process.join()
        kills += 1
    assert kills == 2
    ours, theirs = (_losses(tmp_path / name) for name in ("whole", "killed"))
    assert ours == theirs
    assert [step for step, _ in ours] == list(range(1, 25))
    last = "checkpoints/step_000024/model.safetensors"
    assert (tmp_path / "whole" / last).read_bytes() == (place / last).read_bytes()


def _lines(folder):
    file = folder / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def _losses(folder):
    rows = read_jsonl(folder / "metrics.jsonl")
    return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]


def test_training_lowers_the_loss_and_logs_it(tokenizer, examples, tmp_path):
    sink = Recorder()
    trained(tokenizer, examples, tmp_path, settings(learning_rate=1e-2), sink=sink)
    rows = [row for row in sink.rows if "train/loss" in row]
    assert len(rows) == 3
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert {
        "train/grad_norm", "train/learning_rate", "system/target_tokens_per_s",
        "system/tokens_per_s", "train/padding_rate", "system/memory_gib",
    } <= set(rows[0])  # fmt: skip
    assert rows[0]["train/padding_rate"] == 0.0


def test_a_loss_that_is_not_finite_stops_with_batch_and_last_good_checkpoint(
    tokenizer, examples, tmp_path
):
    model = packed_model(tokenizer)
    store = CheckpointStore(tmp_path, keep=1)
    trainer = SftTrainer(model, tokenizer, settings(), store, MetricLog([]), seed=5)
    run = trainer.train(examples, Schedule(3, frozenset({1, 3}), 24))
    assert next(run).step == 1
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
        next(model.parameters())[:, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="step 2: loss nan") as raised:
        next(run)
    said = str(raised.value)
    assert "step_000001" in said
    assert "train.learning_rate" in said
    named = said.partition("on the examples ")[2].partition(";")[0].split(", ")
    assert len(named) == 8
    assert set(named) <= {example.id for example in examples}


@pytest.mark.slow
def test_the_model_compiled_gives_the_same_losses(tokenizer, examples, tmp_path):
    plain, compiled = Recorder(), Recorder()
    trained(tokenizer, examples, tmp_path / "a", settings(), sink=plain)
    trained(tokenizer, examples, tmp_path / "b", settings(compile=True), sink=compiled)
    ours, theirs = (
        [row["train/loss"] for row in sink.rows if "train/loss" in row]
        for sink in (plain, compiled)
    )
    assert ours == pytest.approx(theirs, rel=1e-5)

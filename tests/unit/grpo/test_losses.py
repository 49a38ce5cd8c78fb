"""Advantages, loss and clip of each recipe through TRL's real trainer, against float64 by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from src.config.loading import load_config
from src.engine.generator import Rollout
from src.grpo.problem_stream import ProblemStream, RolloutProblem
from src.grpo.rollout_source import RolloutSource
from src.grpo.trainer import PolicyTrainer, trl_arguments
from src.grpo.trl_names import pace, reward_function
from src.run.stopping import RunError
from tests.conftest import two_layer_model

GROUP, LIMIT = 4, 60
RECIPES = ("grpo", "dr_grpo", "dapo", "reinforce_baseline", "gspo", "cispo", "maxrl", "rft")
# Two groups: what each member answers to the problem whose answer is 1.
ANSWERS = (("1", "1", "2", "3"), ("2", "1", "2", "no tags"))
TEXTS = {
    "no tags": " I cannot say what it is because I do not know.",
    "1": " $2-1=1$. </think> <answer> 1 </answer>",
    "2": " It is two and nothing else at all. </think> <answer> 2 </answer>",
    "3": " Perhaps seven or some such thing. </think> <answer> 7 </answer>",
}


class FixedPool:
    """Gives each group its completions, with log-probabilities near the model's own."""

    def __init__(self, model, tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._asked: list[tuple[int, list[int]]] = []

    def add(self, key: int, prompt_ids: list[int], seed: int) -> None:
        self._asked.append((key, prompt_ids))

    def ended(self) -> Iterator[tuple[int, Rollout]]:
        noise = np.random.default_rng(0)
        while self._asked:
            key, prompt_ids = self._asked.pop(0)
            group, member = divmod(key, GROUP)
            text = TEXTS[ANSWERS[group][member]]
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            own = sequence_logprobs(self._model, prompt_ids, ids)
            engine = (own + noise.normal(0, 0.05, len(ids))).tolist()
            yield key, Rollout(ids, engine, text, finished=member < 3 or group == 0)


def sequence_logprobs(model, prompt_ids: list[int], ids: list[int]) -> np.ndarray:
    """Return the log-probability of each completion token in float64, the sequence alone."""
    exact = copy.deepcopy(model).double()
    exact.forward = type(exact).forward.__get__(exact)  # without TRL's output layer
    with torch.no_grad():
        logits = exact(torch.tensor([prompt_ids + ids])).logits[0, len(prompt_ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0].numpy()


def build(
    tokenizer, folder, recipe: str, attention: str = "packed", **more: object
) -> PolicyTrainer:
    settings = {
        "grpo.recipe": recipe,
        "grpo.prompts_per_step": 2,
        "grpo.group_size": GROUP,
        "grpo.micro_batch_size": 8,
        "grpo.steps": 1,
        "grpo.dynamic_sampling": "false",
        "train.compute_dtype": "float32",
        "engine.swap_tolerance": 10,
        "sampling.max_completion_tokens": LIMIT,
        **more,
    }
    config = load_config(
        ["config/tiny/grpo_config.yaml"], [f"{key}={value}" for key, value in settings.items()]
    )
    model = two_layer_model(tokenizer, tied=True)
    model.set_attn_implementation(attention)
    ids = tokenizer("What is $2-1$?", add_special_tokens=False)["input_ids"]
    longer = tokenizer("What is two minus one, in digits?", add_special_tokens=False)["input_ids"]
    rows = [RolloutProblem(f"p{i}", "", row, "1", 1, "") for i, row in enumerate((ids, longer))]
    trainer = PolicyTrainer(
        RolloutSource(ProblemStream(rows, seed=0), config),
        config,
        model=model,
        reward_funcs=[reward_function(name) for name in config.grpo.rewards.weights()],
        args=trl_arguments(config, folder, use_vllm=False),
        train_dataset=pace(config),
        processing_class=tokenizer,
    )
    trainer._pool = lambda: FixedPool(model, tokenizer)
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    return trainer


def generated(trainer: PolicyTrainer) -> dict[str, torch.Tensor]:
    trainer.model.train()
    rows = trainer.settings.grpo.completions_per_batch
    return trainer._generate_and_score_completions([{"prompt": ""} for _ in range(rows)])


def totals(trainer: PolicyTrainer) -> np.ndarray:
    """Return the weighted rewards (groups, members) by hand."""
    weights = trainer.settings.grpo.rewards
    rows = []
    for group in trainer.drawn.groups:
        rows.append([])
        for rollout, grade in group.members:
            late = max(0, len(rollout.ids) - LIMIT * 0.8) / (LIMIT * 0.2)
            overlong = -late if rollout.finished else -1.0
            rows[-1].append(float(grade.outcome == "correct") + weights.overlong * overlong)
    return np.array(rows)


def advantages_by_hand(trainer: PolicyTrainer) -> np.ndarray:
    rewards, recipe = totals(trainer), trainer.settings.grpo.recipe
    if recipe == "rft":
        return (rewards == 1).astype(float).ravel()
    if recipe == "maxrl":
        return (rewards / rewards.mean(1, keepdims=True) - 1).ravel()
    centred = rewards - rewards.mean(1, keepdims=True)
    if trainer.settings.grpo.scale_rewards:
        centred = centred / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)
    return centred.ravel()


@pytest.mark.parametrize("recipe", RECIPES)
def test_advantages(recipe, tokenizer, tmp_path):
    trainer = build(tokenizer, tmp_path, recipe)
    generated(trainer)
    assert trainer.advantages == pytest.approx(advantages_by_hand(trainer), abs=1e-6)
    assert (trainer.settings.grpo.rewards.overlong > 0) == (recipe == "dapo")


def loss_by_hand(trainer: PolicyTrainer, old_shift: float) -> float:
    """Return the recipe's loss: clipped ratio, importance weight, its own way to average."""
    grpo = trainer.settings.grpo
    sums, lengths, counted = [], [], []
    members = [
        (group.problem, rollout) for group in trainer.drawn.groups for rollout, _ in group.members
    ]
    for (problem, rollout), advantage in zip(members, advantages_by_hand(trainer), strict=True):
        own = sequence_logprobs(trainer.model, problem.prompt_ids, rollout.ids)
        old = own + old_shift
        weight = np.minimum(np.exp(old - np.array(rollout.logprobs)), grpo.importance_cap)
        ratio = np.exp(own - old)
        if grpo.recipe == "gspo":  # one a sequence, equation 7; the range is the paper's
            ratio = np.full_like(ratio, np.exp((own - old).mean()))
            assert (grpo.clip_low, grpo.clip_high) == (3e-4, 4e-4)
        clipped = np.clip(ratio, 1 - grpo.clip_low, 1 + grpo.clip_high)
        tokens = -np.minimum(ratio * advantage, clipped * advantage) * weight
        if grpo.recipe == "cispo":
            tokens = -np.minimum(ratio, 5.0) * advantage * own * weight
        sums.append(tokens.sum())
        lengths.append(len(own))
        counted.append(len(own) * (grpo.recipe != "rft" or advantage > 0))
    if grpo.recipe in ("grpo", "reinforce_baseline", "gspo"):
        return float(np.mean(np.array(sums) / lengths))
    token_mean = grpo.recipe in ("dapo", "cispo", "rft")
    return sum(sums) / (sum(counted) if token_mean else LIMIT * len(lengths))


@pytest.mark.parametrize(
    ("recipe", "shift"),
    # The last leaves CISPO's range, whose cut is far off.
    [*((recipe, shift) for recipe in RECIPES for shift in (0.0, 0.3, -0.3)), ("cispo", -2.0)],
)
def test_loss_and_clip(recipe, shift, tokenizer, tmp_path):
    trainer = build(tokenizer, tmp_path, recipe)
    inputs = generated(trainer)
    if shift:  # as after an update: the ratio leaves the clipping range on one side
        with torch.no_grad():
            mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
            ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
            columns = inputs["completion_ids"].shape[1]
            own, _, _ = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids, mask, columns
            )
        inputs["old_per_token_logps"] = own + shift
    loss = trainer._compute_loss(trainer.model, inputs)
    assert loss.item() == pytest.approx(loss_by_hand(trainer, shift), rel=2e-4, abs=1e-7)


@pytest.mark.parametrize("recipe", RECIPES)
def test_how_a_step_is_cut_does_not_change_its_gradient(recipe, tokenizer, tmp_path):
    gradients = []
    for size in (8, 2):
        trainer = build(tokenizer, tmp_path, recipe, **{"grpo.micro_batch_size": size})
        trainer.model.train()
        for _ in range(8 // size):
            rows = [{"prompt": ""} for _ in range(8)]
            trainer._compute_loss(trainer.model, trainer._prepare_inputs(rows)).backward()
            trainer._step += 1
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    scale = gradients[0].abs().max()
    assert (gradients[0] - gradients[1]).abs().max() < 2e-6 * scale


def test_truncated_completions_are_masked_and_no_others(tokenizer, tmp_path):
    trainer = build(tokenizer, tmp_path, "grpo", **{"grpo.mask_truncated": "true"})
    inputs = generated(trainer)
    counted = (inputs["completion_mask"] * inputs["tool_mask"]).sum(1).tolist()
    expected = [
        len(rollout.ids) * rollout.finished
        for group in trainer.drawn.groups
        for rollout, _ in group.members
    ]
    assert counted == expected
    assert expected.count(0) == 1


@pytest.mark.parametrize("attention", ["packed", "sdpa"])
def test_a_packed_row_scores_as_each_sequence_alone(attention, tokenizer, tmp_path):
    """With `packed` the members of a group share one copy of their prompt."""
    trainer = build(tokenizer, tmp_path, "grpo", attention)
    inputs = generated(trainer)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    columns = inputs["completion_ids"].shape[1]
    with torch.no_grad():
        packed, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, columns)
    members = [(g.problem, r) for g in trainer.drawn.groups for r, _ in g.members]
    for row, (problem, rollout) in zip(packed, members, strict=True):
        alone = sequence_logprobs(trainer.model, problem.prompt_ids, rollout.ids)
        assert row[: len(alone)].numpy() == pytest.approx(alone, abs=1e-5)


def test_one_step_raises_rewarded_completions_and_lowers_the_others(tokenizer, tmp_path):
    learning = {"grpo.learning_rate": 1e-3, "grpo.warmup_steps": 0}
    trainer = build(tokenizer, tmp_path, "grpo", **learning, **{"run.seed": 3})
    trainer.train()
    start = two_layer_model(tokenizer, tied=True)  # the policy as it began
    group = trainer.drawn.groups[0]
    for rollout, grade in group.members:
        before, after = (
            sequence_logprobs(model, group.problem.prompt_ids, rollout.ids).sum()
            for model in (start, trainer.model)
        )
        assert (after > before) == (grade.outcome == "correct"), (rollout.text, after - before)


def test_rejection_fine_tuning_has_the_gradient_of_fine_tuning_on_the_correct_ones(
    tokenizer, tmp_path
):
    off = {"grpo.importance_correction": "off"}
    trainer = build(tokenizer, tmp_path, "rft", **off)
    exact = copy.deepcopy(trainer.model).double()
    exact.forward = type(exact).forward.__get__(exact)
    trainer._compute_loss(trainer.model, generated(trainer)).backward()
    nll, count = 0.0, 0
    for group in trainer.drawn.groups:
        prompt = group.problem.prompt_ids
        for ids in (r.ids for r, grade in group.members if grade.outcome == "correct"):
            logits = exact(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            nll += torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum")
            count += len(ids)
    (nll / count).backward()
    own, wanted = (
        torch.cat([p.grad.flatten().double() for p in model.parameters()])
        for model in (trainer.model, exact)
    )
    assert (own - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("recipe", ["dapo", "gspo", "cispo", "maxrl"])
def test_the_parts_of_a_batch_add_up_to_its_gradient(recipe, tokenizer, tmp_path):
    """`updates_per_batch` cuts a batch into steps; before the first update each is its share."""
    gradients = []
    for parts in (1, 2):
        cut = {"grpo.updates_per_batch": parts, "grpo.micro_batch_size": 2, "grpo.steps": 2}
        trainer = build(tokenizer, tmp_path, recipe, **cut)
        trainer.model.train()
        assert trainer.args.gradient_accumulation_steps == 4 // parts
        for _ in range(4):
            inputs = trainer._prepare_inputs([{"prompt": ""} for _ in range(8)])
            assert ("old_per_token_logps" in inputs) == (parts > 1)
            (trainer._compute_loss(trainer.model, inputs) / parts).backward()
            trainer._step += 1
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
        moved = trainer.agreement.metrics()
        assert moved.get("grpo/update_ratio", 1.0) == pytest.approx(1.0, abs=1e-4)
    assert (gradients[0] - gradients[1]).abs().max() < 2e-6 * gradients[0].abs().max()


def test_several_updates_a_batch_draw_once_move_the_ratio_and_resume_exactly(tokenizer, tmp_path):
    cut = {
        "grpo.updates_per_batch": 2, "grpo.micro_batch_size": 4, "grpo.steps": 4,
        "grpo.save_every": 2, "grpo.learning_rate": 1e-3,
    }  # fmt: skip
    whole, resumed = (build(tokenizer, tmp_path / "trl", "gspo", **cut) for _ in range(2))
    draws = []
    draw, whole.source.draw = whole.source.draw, lambda pool: draws.append(1) or draw(pool)
    whole.train()
    assert len(draws) == 2
    assert whole.agreement.metrics()["grpo/update_gap"] > 1e-4
    resumed.source.cursor = 2
    resumed.train(resume_from_checkpoint=str(tmp_path / "trl" / "checkpoint-2"))
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@contextmanager
def stopping(trainer: PolicyTrainer) -> Iterator[None]:
    """End the process of the user's rewards with the block."""
    try:
        yield
    finally:
        trainer.source._scorer.stop()


def test_a_reward_of_the_users_that_fails_is_mended_and_training_goes_on(tokenizer, tmp_path):
    face = "def mine(completions, references, rows, grades):\n"
    good = f"{face}    return [len(text) for text in completions]\n"
    file, folder = tmp_path / "mine.py", tmp_path / "trl"
    settings = {f"grpo.rewards.{file}:mine": 0.01, "grpo.steps": 2, "grpo.save_every": 1}
    file.write_text(good)
    whole = build(tokenizer, tmp_path / "whole", "grpo", **settings)
    with stopping(whole):
        whole.train()
    lengths = [[len(r.text) for r, _ in group.members] for group in whole.drawn.groups]
    assert [[own["mine"] for own in group.rewards] for group in whole.drawn.groups] == lengths
    second = "    calls.append(1 / (not calls))\n    return"
    file.write_text(f"calls = []\n{good}".replace("    return", second))
    failing = build(tokenizer, folder, "grpo", **settings)
    with stopping(failing), pytest.raises(RunError, match="division by"):
        failing.train()
    file.write_text(good)
    resumed = build(tokenizer, folder, "grpo", **settings)
    resumed.source.cursor = 2
    with stopping(resumed):
        resumed.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)

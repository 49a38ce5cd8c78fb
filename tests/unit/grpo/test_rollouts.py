"""Groups of a step: refilled, graded beside sampling, the same whatever the timing."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

import src.grpo.rollouts
from src.config.loading import load_config
from src.engine.generator import Rollout
from src.grpo.problem_stream import ProblemStream, RolloutProblem
from src.grpo.rollout_source import (
    RolloutSource,
    completion_records,
    rollout_metrics,
    training_rows,
)
from src.grpo.rollouts import Drawing, GroupDrawer
from utils.grading.outcome import Grade

GROUP = 4
EOS = 0


class FakePool:
    """Rollouts that end in a random order; their text names key and seed."""

    def __init__(self, order: int, pause_s: float = 0.0) -> None:
        self._random = random.Random(order)
        self._pause_s = pause_s
        self._running: list[tuple[int, list[int], int]] = []
        self.events: list[tuple[str, int]] = []

    def add(self, key: int, prompt_ids: list[int], seed: int) -> None:
        self.events.append(("joins", key))
        self._running.append((key, prompt_ids, seed))

    def ended(self) -> Iterator[tuple[int, Rollout]]:
        while self._running:
            chosen = self._running.pop(self._random.randrange(len(self._running)))
            key, prompt_ids, seed = chosen
            time.sleep(self._pause_s)
            self.events.append(("ends", key))
            yield key, Rollout([5, 6], [-0.1, -0.2], f"{prompt_ids[0]}:{seed}", finished=True)


def outcome_of(text: str) -> str:
    """Problems 0 to 2 of every 4 are all wrong, all right, all unscorable; the last is mixed."""
    problem, seed = map(int, text.split(":"))
    kind = problem % 4
    if kind == 3:
        return "correct" if seed % 2 else "wrong_answer"
    return ("wrong_answer", "correct", "unscorable")[kind]


@pytest.fixture
def grader(monkeypatch):
    """A grader that takes a random time."""
    lock = threading.Lock()

    def grade(texts: list[str], answers: list[str], problems: list[str]) -> list[Grade]:
        with lock:
            time.sleep(random.random() * 0.002)
        return [Grade(outcome_of(text), None, "", "text") for text in texts]

    monkeypatch.setattr(src.grpo.rollouts, "grade_batch", grade)


def problem(number: int) -> RolloutProblem:
    return RolloutProblem(f"p{number}", f"prompt {number}", [number], "1", number % 5, "")


def draw(order: int, wanted: int, limit: int, pool: FakePool | None = None):
    return GroupDrawer(
        pool or FakePool(order),
        Drawing(wanted, limit, GROUP),
        lambda number: (number, problem(number)),
        lambda place, member: place * GROUP + member,
    ).draw()


@pytest.mark.usefixtures("grader")
def test_dull_groups_are_replaced_until_the_step_is_full():
    drawn = draw(order=0, wanted=3, limit=100)
    # The shortest run of the stream with three mixed groups: places 3, 7 and 11.
    assert [group.place for group in drawn.groups] == [3, 7, 11]
    assert [group.place for group in drawn.dropped] == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert drawn.started == 12


@pytest.mark.usefixtures("grader")
def test_what_is_drawn_does_not_depend_on_timing():
    def seen(order: int):
        drawn = draw(order, wanted=5, limit=100)
        return [
            (group.place, [rollout.text for rollout, _ in group.members])
            for group in (*drawn.groups, *drawn.dropped)
        ]

    assert all(seen(order) == seen(0) for order in range(1, 20))


@pytest.mark.usefixtures("grader")
def test_what_runs_beside_what_does_not_depend_on_how_fast_grades_come():
    """Batches decide how logits are rounded, so a fresh group joins at the same place each time."""
    pools = [FakePool(0, pause_s=0.0005) for _ in range(10)]
    for pool in pools:
        draw(0, wanted=5, limit=100, pool=pool)
    assert all(pool.events == pools[0].events for pool in pools)
    last_start = max(i for i, (event, _) in enumerate(pools[0].events) if event == "joins")
    assert ("ends", 0) in pools[0].events[:last_start]


@pytest.mark.usefixtures("grader")
def test_the_limit_bounds_the_draw_and_dull_groups_fill_the_step():
    drawn = draw(order=1, wanted=4, limit=8)
    assert drawn.started == 8
    assert [group.place for group in drawn.groups] == [0, 1, 3, 7]


@pytest.mark.usefixtures("grader")
def test_without_dynamic_sampling_every_group_is_taken():
    drawn = draw(order=1, wanted=4, limit=4)
    assert [group.place for group in drawn.groups] == [0, 1, 2, 3]
    assert not drawn.dropped


@pytest.mark.usefixtures("grader")
def test_grades_stay_beside_their_completions():
    for group in draw(order=3, wanted=8, limit=30).groups:
        for member, (rollout, grade) in enumerate(group.members):
            assert rollout.text == f"{group.place}:{group.place * GROUP + member}"
            assert grade.outcome == outcome_of(rollout.text)


def config(**overrides: object):
    settings = {"grpo.prompts_per_step": 4, "grpo.group_size": GROUP, "grpo.micro_batch_size": 8}
    settings |= overrides
    return load_config(
        ["config/tiny/grpo_config.yaml"], [f"{key}={value}" for key, value in settings.items()]
    )


def source(settings, processes: int = 1, rank: int = 0) -> RolloutSource:
    made = RolloutSource(ProblemStream([problem(i) for i in range(10)], seed=1), settings)
    made._processes, made._rank = processes, rank
    return made


@pytest.mark.usefixtures("grader")
def test_two_processes_draw_what_one_does():
    settings = config(**{"grpo.dynamic_sampling": "false"})
    alone = source(settings).draw(FakePool(0))
    shared = [source(settings, 2, rank).draw(FakePool(rank)) for rank in (0, 1)]
    by_place = {group.place: group for drawn in shared for group in drawn.groups}
    assert [group.place for group in alone.groups] == sorted(by_place)
    for group in alone.groups:
        assert group.members == by_place[group.place].members


@pytest.mark.usefixtures("grader")
def test_a_source_goes_on_from_its_cursor():
    settings = config()
    first = source(settings)
    texts = [[g.place for g in first.draw(FakePool(0)).groups] for _ in range(3)]
    again = source(settings)
    again.draw(FakePool(5))
    resumed = source(settings)
    resumed.cursor = again.cursor
    assert [[g.place for g in resumed.draw(FakePool(9)).groups] for _ in range(2)] == texts[1:]


@pytest.mark.usefixtures("grader")
def test_different_seeds_sample_differently():
    texts = []
    for seed in (1, 2):
        drawn = source(config(**{"run.seed": seed})).draw(FakePool(0))
        texts.append({rollout.text for group in drawn.groups for rollout, _ in group.members})
        assert len(texts[-1]) == 4 * GROUP  # members of a group differ too
    assert not texts[0] & texts[1]


@pytest.mark.usefixtures("grader")
def test_rows_for_trl_append_the_end_and_mask_what_was_not_sampled():
    settings = config(**{"grpo.dynamic_sampling": "false"})
    own = source(settings)
    drawn = own.draw(FakePool(0))
    own.reward(drawn)
    rows = training_rows(drawn, EOS)
    outcomes = [grade.outcome for group in drawn.groups for _, grade in group.members]
    assert "unscorable" in outcomes
    for ids, logprobs, mask, scores, outcome in zip(
        rows["completion_ids"], rows["logprobs"], rows["env_mask"], rows["scores"], outcomes,
        strict=True,
    ):  # fmt: skip
        assert ids == [5, 6, EOS]
        assert logprobs == [-0.1, -0.2, 0.0]
        assert mask == ([0, 0, 0] if outcome == "unscorable" else [1, 1, 0])
        # One number would be enough for TRL to count the missing ones as zero.
        assert all((value is None) == (outcome == "unscorable") for value in scores.values())


@pytest.mark.usefixtures("grader")
def test_figures_of_a_step():
    settings = config(**{"grpo.dynamic_sampling": "true", "grpo.draw_limit": 2})
    own = source(settings)
    drawn = own.draw(FakePool(0))
    own.reward(drawn)
    records = list(completion_records(drawn))
    values = rollout_metrics(records, settings.grpo.rewards.weights(), GROUP)
    groups = [*drawn.groups, *drawn.dropped]
    outcomes = [grade.outcome for group in groups for _, grade in group.members]
    kept = [grade for group in drawn.groups for _, grade in group.members]
    assert values["grpo/drawn_groups"] == len(groups) == 8
    assert values["grpo/dropped_groups"] == 4
    assert values["grpo/accuracy"] == outcomes.count("correct") / len(outcomes)
    assert values["grpo/unscorable_rate"] == outcomes.count("unscorable") / len(outcomes)
    scorable = [grade.reward for grade in kept if grade.outcome != "unscorable"]
    assert values["grpo/reward/accuracy"] == pytest.approx(sum(scorable) / len(scorable))
    dull = [not group.informative for group in groups]
    assert values["grpo/zero_variance_rate"] == sum(dull) / len(dull)


def test_the_problem_echoed_back_earns_no_reward():
    asked = RolloutProblem("p", "prompt", [1], "5", 1, "What is $2+3$?")
    texts = [f"x</think> <answer>{answer}</answer>" for answer in ("2+3", "5", "3 + 2")]
    assert [found.reward for found in src.grpo.rollouts._grades(texts, asked)] == [0.0, 1.0, 0.0]

"""Where GRPO's rollouts come from: the problem stream, its cursor, seeds, and what a step drew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from src.config.schema import Config
from src.data.prompts import PromptTemplate
from src.engine.generator import Rollout, RolloutPool, sample_seed
from src.grpo.problem_stream import ProblemStream, RolloutProblem
from src.grpo.rollouts import Drawing, Drawn, Group, GroupDrawer
from src.rewards.batch import RewardBatch, Row
from src.rewards.scorer import RewardScorer
from src.run.processes import process_count, process_rank
from src.training.parallel import gathered
from utils.data.problem import Problem
from utils.grading.outcome import Grade


@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """What a step's figures need of one completion."""

    outcome: str
    tokens: int
    finished: bool
    kept: bool
    rewards: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """A step's groups to draw: as many problems, with their places, as there may be groups."""

    drawing: Drawing
    problems: Sequence[tuple[int, RolloutProblem]]
    seed: int
    """The run's."""

    def drawn_from(self, pool: RolloutPool) -> Drawn:
        """Draw them."""
        return GroupDrawer(
            pool,
            self.drawing,
            self.problems.__getitem__,
            lambda place, member: sample_seed(self.seed, "rollout", place, member),
        ).draw()


class RolloutSource:
    """Draws each step's groups; each process its share, all from one stream.

    Every completion has its own seed from the run's seed, the group's place in the stream and its
    number in the group. So members of a group differ, no batch order matters, a run that resumes
    from `cursor` goes on with what would have come next, and two processes draw what one would.
    """

    def __init__(
        self, stream: ProblemStream, config: Config, scorer: RewardScorer | None = None
    ) -> None:
        self._stream = stream
        self._config = config
        self._scorer = scorer or RewardScorer(config)
        self._processes, self._rank = process_count(), process_rank()
        self.cursor = 0
        """Position in the stream of the next group."""

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that may be drawn."""
        return self._stream.longest_prompt

    def draw(self, pool: RolloutPool) -> Drawn:
        """Draw the groups of the next step; all processes must call this together."""
        drawn = self.request().drawn_from(pool)
        self.go_behind(drawn)
        return drawn

    def request(self) -> DrawRequest:
        """Return what this process's groups of the next step are drawn from."""
        grpo = self._config.grpo
        wanted = grpo.prompts_per_step // self._processes
        limit = math.ceil(wanted * grpo.draw_limit) if grpo.dynamic_sampling else wanted
        places = [self.cursor + self._rank + number * self._processes for number in range(limit)]
        return DrawRequest(
            Drawing(wanted, limit, grpo.group_size),
            [(place, self._stream.at(place)) for place in places],
            self._config.run.seed,
        )

    def go_behind(self, drawn: Drawn) -> None:
        """Put the cursor behind what was drawn, in all processes."""
        # Processes may have drawn unequal numbers; the next step begins behind all of them.
        self.cursor += self._processes * max(gathered([drawn.started]))

    def reward(self, drawn: Drawn) -> None:
        """Give every completion that is trained on its rewards."""
        members = [
            (group, member)
            for group in drawn.groups
            for member, grade in enumerate(group.grades)
            if grade.outcome != "unscorable"
        ]
        values = self._scorer.values(_reward_batch(members, self._config))
        names = list(self._config.grpo.rewards.weights())
        # All None, because one number would be enough for TRL to count the missing ones as zero.
        for group in drawn.groups:
            group.rewards = [dict.fromkeys(names) for _ in group.grades]
        for number, (group, member) in enumerate(members):
            group.rewards[member] = {name: values[name][number] for name in names}

    def problem(self, place: int) -> RolloutProblem:
        """Return the problem at a place of the stream."""
        return self._stream.at(place)


def trial_batch(problems: Sequence[Problem], prompt: PromptTemplate, config: Config) -> RewardBatch:
    """Return made-up right completions of the first problems, to try reward functions on."""
    groups = []
    for place, one in enumerate(problems[:2]):
        asked = RolloutProblem(
            one.unique_id, prompt.render(one), [], one.answer, one.level, one.problem
        )
        text = f" I know it. </think> <answer> {one.answer} </answer>"
        rollout = Rollout([0] * 8, [0.0] * 8, text, finished=True)
        grade = Grade("correct", one.answer, "", "text")
        groups.append(Group(place, asked, {0: rollout}, [grade]))
    return _reward_batch([(group, 0) for group in groups], config)


def _reward_batch(members: Sequence[tuple[Group, int]], config: Config) -> RewardBatch:
    return RewardBatch(
        [group.rollouts[member].text for group, member in members],
        [group.problem.answer for group, _ in members],
        [_row(group, group.rollouts[member], config) for group, member in members],
        [group.grades[member] for group, member in members],
    )


def _row(group: Group, rollout: Rollout, config: Config) -> Row:
    limit = config.sampling.max_completion_tokens
    return {
        "unique_id": group.problem.unique_id,
        "problem": group.problem.problem,
        "prompt": group.problem.prompt,
        "level": group.problem.level,
        "group": group.place,
        "tokens": len(rollout.ids),
        "finished": rollout.finished,
        "token_limit": limit,
        "overlong_tokens": round(config.grpo.overlong_share * limit),
    }


def training_rows(drawn: Drawn, eos: int) -> dict[str, list[Any]]:
    """Return the kept completions, column by column, as TRL's `rollout_func` should.

    One that ended at the stop text gets the end-of-text token, without which TRL would call it
    truncated. That token and unscorable completions are masked (`env_mask`) from the loss.
    """
    rows: dict[str, list[Any]] = {
        name: [] for name in ("prompt_ids", "completion_ids", "logprobs", "env_mask", "scores")
    }
    for group in drawn.groups:
        rows["scores"] += group.rewards
        for rollout, grade in group.members:
            ends = rollout.finished and rollout.ids[-1] != eos
            counts = int(grade.outcome != "unscorable")
            rows["prompt_ids"].append(group.problem.prompt_ids)
            rows["completion_ids"].append(rollout.ids + [eos] * ends)
            rows["logprobs"].append(rollout.logprobs + [0.0] * ends)
            rows["env_mask"].append([counts] * len(rollout.ids) + [0] * ends)
    return rows


def completion_records(drawn: Drawn) -> Iterator[CompletionRecord]:
    """Yield what the step's figures need of every completion drawn, kept or not."""
    for kept, groups in ((True, drawn.groups), (False, drawn.dropped)):
        for group in groups:
            rewards = group.rewards or [{} for _ in group.grades]  # none of those that are dropped
            for (rollout, grade), own in zip(group.members, rewards, strict=True):
                yield CompletionRecord(grade.outcome, len(rollout.ids), rollout.finished, kept, own)


def rollout_metrics(
    records: Sequence[CompletionRecord], weights: dict[str, float], group_size: int
) -> dict[str, float]:
    """Return a step's figures.

    `grpo/accuracy` and the other rates count every completion drawn; `grpo/reward` only those
    that are trained on, which dynamic sampling chooses. Unscorable ones have no reward.

    Args:
        records: of all processes, group by group.
    """
    kept = [record for record in records if record.kept]
    groups = [records[i : i + group_size] for i in range(0, len(records), group_size)]
    scored = [record.rewards for record in kept if record.outcome != "unscorable"]
    totals = [sum(weights[name] * (row[name] or 0.0) for name in weights) for row in scored]
    lengths = [record.tokens for record in records]
    values = {
        "reward": _mean(totals),
        "accuracy": fmean(record.outcome == "correct" for record in records),
        "format_rate": fmean(record.outcome != "format_failure" for record in records),
        "unscorable_rate": fmean(record.outcome == "unscorable" for record in records),
        "truncated_rate": fmean(not record.finished for record in records),
        "completion_tokens": fmean(lengths),
        "longest_completion_tokens": float(max(lengths)),
        "drawn_groups": float(len(groups)),
        "dropped_groups": float(len(groups) - len(kept) // group_size),
        "zero_variance_rate": fmean(not _varies(group) for group in groups),
    }
    values |= {f"reward/{name}": _mean([row[name] or 0.0 for row in scored]) for name in weights}
    return {f"grpo/{name}": value for name, value in values.items()}


def _varies(group: Sequence[CompletionRecord]) -> bool:
    outcomes = [record.outcome == "correct" for record in group if record.outcome != "unscorable"]
    return len(set(outcomes)) == 2


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan

"""Draw a step's groups of completions, grade them while others are sampled, refill dull groups.

Dynamic sampling (DAPO, arXiv:2503.14476, section 3.2): a group whose completions are all right or
all wrong has no advantage and no gradient. Where one is dull, a fresh group joins the rollouts that
are running, so the engine is never idle. What a step trains on does not depend on timing: it is the
shortest run of the problem stream that holds enough informative groups. Nor does what runs beside
what, which decides how low-precision logits are rounded: a group's grades are taken when as many
further rollouts have ended as a group has members, however fast the grader was.

The decision rests on the binary outcome, never on a shaped reward.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from src.engine.generator import Rollout, RolloutPool
from src.grpo.problem_stream import RolloutProblem
from utils.drgrpo_grader import grade_batch
from utils.grading.outcome import Grade


@dataclass
class Group:
    """The completions of one problem; `place` is its position in the problem stream."""

    place: int
    problem: RolloutProblem
    rollouts: dict[int, Rollout] = field(default_factory=dict)
    """Member -> rollout, in any order."""
    grades: list[Grade] = field(default_factory=list)
    """By member, once graded."""
    rewards: list[dict[str, float | None]] = field(default_factory=list)
    """By member, once rewarded; without numbers for one that is unscorable."""

    @property
    def members(self) -> list[tuple[Rollout, Grade]]:
        """Return rollouts with their grades, by member."""
        return [(self.rollouts[i], grade) for i, grade in enumerate(self.grades)]

    @property
    def informative(self) -> bool:
        """Tell whether some completions are correct and some not; unscorable ones do not count."""
        outcomes = Counter(grade.outcome for grade in self.grades)
        scorable = len(self.grades) - outcomes["unscorable"]
        return 0 < outcomes["correct"] < scorable


@dataclass(frozen=True)
class Drawn:
    """The groups of one process and step, and what it took to get them."""

    groups: list[Group]
    dropped: list[Group]
    generate_s: float
    grade_s: float
    """Seconds of waiting for the grader."""

    @property
    def started(self) -> int:
        """Groups drawn."""
        return len(self.groups) + len(self.dropped)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What to draw: `wanted` groups of `group_size`, and at most `limit` to find informative ones.

    With `limit` = `wanted` every group is taken as it comes.
    """

    wanted: int
    limit: int
    group_size: int


class GroupDrawer:
    """Draws the groups of one step.

    Args:
        take: position in this process's share of the stream, from 0 -> (place, problem).
        seed: (place, member) -> seed of one completion.
    """

    def __init__(
        self,
        pool: RolloutPool,
        drawing: Drawing,
        take: Callable[[int], tuple[int, RolloutProblem]],
        seed: Callable[[int, int], int],
    ) -> None:
        self._pool, self._drawing = pool, drawing
        self._take, self._seed = take, seed
        self._groups: list[Group] = []
        self._ended = 0
        self._grading: deque[tuple[int, Group, Future[list[Grade]]]] = deque()
        """When each group ended, in ended rollouts; earliest first."""
        self._waited_s = 0.0

    def draw(self) -> Drawn:
        """Sample and grade until the step is full or the limit is reached."""
        started = time.perf_counter()
        with ThreadPoolExecutor(1, "grader") as grader:
            for _ in range(self._drawing.wanted):
                self._start_group()
            before = 0
            while len(self._groups) > before:
                before = len(self._groups)
                for key, rollout in self._pool.ended():
                    self._receive(key, rollout, grader)
                    self._take_grades(self._ended - self._drawing.group_size)
                self._take_grades(self._ended)
        kept, dropped = self._select()
        generate_s = time.perf_counter() - started - self._waited_s
        return Drawn(kept, dropped, generate_s, self._waited_s)

    def _start_group(self) -> None:
        number = len(self._groups)
        place, problem = self._take(number)
        self._groups.append(Group(place, problem))
        size = self._drawing.group_size
        for member in range(size):
            key = number * size + member
            self._pool.add(key, problem.prompt_ids, self._seed(place, member))

    def _receive(self, key: int, rollout: Rollout, grader: ThreadPoolExecutor) -> None:
        number, member = divmod(key, self._drawing.group_size)
        group = self._groups[number]
        group.rollouts[member] = rollout
        self._ended += 1
        if len(group.rollouts) == self._drawing.group_size:
            texts = [group.rollouts[i].text for i in range(self._drawing.group_size)]
            grades = grader.submit(_grades, texts, group.problem)
            self._grading.append((self._ended, group, grades))

    def _take_grades(self, until: int) -> None:
        """Wait for the grades of groups that ended by then; start a group for each dull one."""
        waiting = time.perf_counter()
        while self._grading and self._grading[0][0] <= until:
            _, group, grades = self._grading.popleft()
            group.grades = grades.result()
            if not group.informative and len(self._groups) < self._drawing.limit:
                self._start_group()
        self._waited_s += time.perf_counter() - waiting

    def _select(self) -> tuple[list[Group], list[Group]]:
        """Keep informative groups first, and what is missing from the dull ones, in their order."""
        wanted = self._drawing.wanted
        if len(self._groups) == wanted:
            return self._groups, []
        by_use = sorted(self._groups, key=lambda group: not group.informative)
        kept = {group.place for group in by_use[:wanted]}
        return (
            [group for group in self._groups if group.place in kept],
            [group for group in self._groups if group.place not in kept],
        )


def _grades(texts: list[str], problem: RolloutProblem) -> list[Grade]:
    """Grade a group's completions of one problem."""
    count = len(texts)
    return grade_batch(texts, [problem.answer] * count, problems=[problem.problem] * count)

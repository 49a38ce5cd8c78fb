"""Split mode: what is drawn by which weights, what a resumed run finds, what is refused."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest
import torch

from src.config.loading import ConfigError, load_config, with_values
from src.config.schema import Config
from src.engine.generator import Rollout
from src.grpo.problem_stream import ProblemStream, RolloutProblem
from src.grpo.rollout_source import DrawRequest, RolloutSource, training_rows
from src.grpo.rollout_worker import ScoreHeld, TakeWeights
from src.grpo.rollouts import Drawn, Group
from src.grpo.split import SplitRollouts
from src.grpo.trl_names import trl_values
from src.stages import start
from src.stages.plan import describe_plan
from src.training.throughput import StepClock
from utils.grading.outcome import Grade

STEPS = 4
APART = ["devices.train=cpu:0", "devices.eval=cpu:1"]


def config(*more: str) -> Config:
    small = ["grpo.prompts_per_step=2", "grpo.group_size=2", "grpo.micro_batch_size=4"]
    return load_config(["config/tiny/grpo_config.yaml"], [*small, "grpo.mode=split", *more])


def source(settings: Config) -> RolloutSource:
    rows = [RolloutProblem(f"p{i}", "", [i], "1", 1, "") for i in range(50)]
    return RolloutSource(ProblemStream(rows, seed=0), settings)


class Engine:
    """Answers at once; notes what it was asked, by what weights."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.busy_s = 0.0
        self._weights: float | None = None
        self._waiting = None

    def ask(self, request, *, remember: bool = False):
        self.begin(request)
        assert remember == isinstance(request, TakeWeights)
        return self.answer()

    def begin(self, request) -> None:
        assert self._waiting is None
        if isinstance(request, TakeWeights):
            self._weights = request.checksums["w"]
            self.log.append(f"take {self._weights}")
        self._waiting = request

    def answer(self):
        request, self._waiting = self._waiting, None
        if isinstance(request, ScoreHeld):
            self.log.append(f"score {self._weights}")
        if isinstance(request, DrawRequest):
            first = request.problems[0][0]
            self.log.append(f"draw {first} by {self._weights}")
            return drawn(request, self._weights)
        return None


def drawn(request: DrawRequest, weights: float) -> Drawn:
    """Groups as an engine draws them; of the problems one more was dull, by chance of the place."""
    taken = request.problems[: 2 + request.problems[0][0] % 2]
    groups = []
    for place, problem in taken:
        noise = random.Random(f"{place} {weights}")
        rollouts = {
            member: Rollout([member, place], [-noise.random(), -noise.random() / 3], "é\n", True)
            for member in (1, 0)
        }
        grades = [Grade("correct", "1", "", "text"), Grade("format_failure", None, "no", "format")]
        groups.append(Group(place, problem, rollouts, grades))
    return Drawn(groups[-2:], groups[:-2], 1.5, 0.25)


class Memory:
    folder = None

    def write(self, named):
        return {"w": named["w"].item()}


class Trainer:
    """Goes through steps as the real one does; its weights are the number of updates."""

    def __init__(self, settings: Config, *, steps: int = STEPS) -> None:
        self.engine, self.source, self.steps = Engine(), source(settings), steps
        self.split = SplitRollouts(
            self.engine, Memory(), self.source, ahead=settings.grpo.one_step_off
        )
        self.clock, self.lags, self.lots = StepClock(), [], []

    def load(self, done: int) -> None:
        self.split.load(done, lambda: {"w": torch.tensor(done)}, self.clock)

    def step(self, done: int) -> None:
        self.split.begin_step()
        self.load(done)
        self.lots.append(self.split.draw(done, self.clock, last=done + 1 >= self.steps))
        self.lags.append(self.split.lag)

    def validate(self, done: int) -> None:
        self.load(done)
        self.split.validate(None, f"step {done}")


def test_without_the_switch_each_step_is_drawn_by_the_weights_it_trains():
    trainer = Trainer(config())
    for done in range(3):
        trainer.step(done)
    assert trainer.engine.log == [
        *("take 0", "draw 0 by 0", "take 1", "draw 2 by 1", "take 2", "draw 4 by 2"),
    ]
    assert trainer.lags == [0, 0, 0]


def test_one_step_off_draws_the_next_step_by_the_weights_before_the_update():
    trainer = Trainer(config("grpo.one_step_off=true"))
    trainer.validate(0)
    for done in range(STEPS):
        trainer.step(done)
    trainer.validate(STEPS)
    assert trainer.engine.log == [
        *("take 0", "score 0", "draw 0 by 0"),
        *("draw 2 by 0", "take 1"),
        *("draw 4 by 1", "take 2"),
        *("draw 6 by 2", "take 3"),  # and nothing for a fifth step
        *("take 4", "score 4"),
    ]
    assert trainer.lags == [0, 1, 1, 1]


def test_a_validation_in_between_waits_and_changes_nothing_that_is_drawn():
    plain, scored = (Trainer(config("grpo.one_step_off=true")) for _ in range(2))
    for done in range(STEPS):
        plain.step(done)
        scored.validate(done)
        scored.step(done)
    assert plain.lots == scored.lots
    assert plain.lags == scored.lags
    assert "score 2" in scored.engine.log


@pytest.mark.parametrize("ahead", ["true", "false"])
@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_run_killed_and_resumed_trains_on_the_same(ahead, killed_after):
    settings = config(f"grpo.one_step_off={ahead}", "grpo.dynamic_sampling=true")
    whole, killed, resumed = (Trainer(settings) for _ in range(3))
    for done in range(STEPS):
        whole.step(done)
    for done in range(killed_after):
        killed.step(done)
    state = json.loads(json.dumps({"ahead": killed.split.state(), "cursor": killed.source.cursor}))
    assert (state["ahead"] is not None) == (ahead == "true")
    resumed.source.cursor = state["cursor"]
    if state["ahead"]:
        resumed.split.restore(state["ahead"])
    for done in range(killed_after, STEPS):
        resumed.step(done)
    assert killed.lags + resumed.lags == whole.lags
    lots = [training_rows(lot, 0) for lot in (*killed.lots, *resumed.lots)]
    assert lots == [training_rows(lot, 0) for lot in whole.lots]
    assert [lot.dropped for lot in resumed.lots] == [
        lot.dropped for lot in whole.lots[killed_after:]
    ]


def test_busy_shares_are_of_the_step():
    trainer = Trainer(config("grpo.one_step_off=true"))
    trainer.engine.busy_s = 5.0
    trainer.split.begin_step()
    trainer.engine.busy_s = 8.0
    seconds = {"train": 2.0, "logprobs": 1.0, "wait": 0.5, "sync": 0.5, "step": 4.0}
    assert trainer.split.busy_rates(seconds) == {
        "system/trainer_busy_rate": 0.75,
        "system/engine_busy_rate": 0.75,
    }


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["grpo.mode=colocate"], "in grpo.mode colocate the engine cannot sample while"),
        (["grpo.mode=server"], "use grpo.mode: split"),
        (["grpo.iterations=2", "grpo.save_every=10"], "up to 3 updates old"),
        (["grpo.updates_per_batch=2", "grpo.micro_batch_size=2"], "up to 3 updates old"),
        (["grpo.importance_correction=off"], "use token_truncate"),
    ],
)
def test_one_step_off_is_refused_where_it_cannot_be(settings, says):
    with pytest.raises(ConfigError, match=says):
        config("grpo.one_step_off=true", *settings)


def test_a_batch_drawn_elsewhere_may_be_cut_into_several_updates():
    settings = config("grpo.updates_per_batch=2", "grpo.micro_batch_size=2", "grpo.steps=40")
    assert settings.grpo.completions_per_step == 2
    plan = describe_plan("step3_GRPO", settings)
    assert "a batch is cut into 2 step(s), 1 pass(es) over them: 20 batches are drawn" in plan


def test_several_training_processes_are_refused():
    (told,) = config("grpo.prompts_per_step=4").grpo.problems(2)
    assert "split has one training process and one engine, not 2" in told


@pytest.mark.parametrize(
    ("train", "evaluation", "refused"),
    [
        ("cpu", "cpu", True),
        ("cpu", "cpu:1", True),
        ("cpu:0-1", "cpu:1", True),
        ("cpu:0", "cpu:1", False),
        ("cuda:0", "cuda:0", True),
        ("cuda:0", "auto", True),  # there is one GPU
        ("cuda:0", "cpu", False),
    ],
)
def test_trainer_and_engine_need_devices_apart(train, evaluation, refused, monkeypatch):
    monkeypatch.setattr("src.run.processes.present_gpus", lambda: 1)
    monkeypatch.setattr("src.run.processes._VISIBLE_AT_START", None)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("src.run.devices.available_cores", lambda: [0, 1])
    settings = config(f"devices.train={train}", f"devices.eval={evaluation}")
    told = list(start._split_problems(settings))
    assert bool(told) == refused
    assert all("is not apart from devices.train" in line for line in told)
    colocated = with_values(settings, {"grpo.mode": "colocate"})
    assert list(start._split_problems(colocated)) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["devices.eval=[cpu:0,cpu:1]"], "not on cpu:0, cpu:1; name one of them"),
        (
            ["devices.train=cuda:0", "devices.eval=auto", "engine.tensor_parallel=2"],
            "tensor_parallel: 2, but grpo.mode",
        ),
    ],
)
def test_more_than_one_device_for_the_engine_is_refused(settings, told, monkeypatch):
    monkeypatch.setattr("src.run.processes.present_gpus", lambda: 3)
    monkeypatch.setattr("src.run.processes._VISIBLE_AT_START", None)
    monkeypatch.setattr(start, "devices_meet", lambda *_: False)
    (said,) = start._split_problems(config(*settings))
    assert told in said


def test_a_sharded_policy_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    (told,) = start._split_problems(config(*APART))
    assert "accelerate shards it (fsdp2)" in told


def test_the_plan_says_which_device_does_what():
    plan = describe_plan("step3_GRPO", config(*APART))
    assert "cpu:1 draws a step's rollouts, then cpu:0 trains on them" in plan
    ahead = describe_plan("step3_GRPO", config(*APART, "grpo.one_step_off=true"))
    assert "while cpu:0 trains a step, cpu:1 draws the next one's rollouts" in ahead
    assert "cpu:1 scores validation and test" in ahead


def test_trl_has_no_engine_of_its_own(tmp_path):
    assert trl_values(config(*APART), tmp_path)["use_vllm"] is False
    colocated = SimpleNamespace(**trl_values(config("grpo.mode=colocate"), tmp_path))
    assert (colocated.use_vllm, colocated.vllm_mode) == (True, "colocate")

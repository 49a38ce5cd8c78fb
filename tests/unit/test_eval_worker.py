"""The evaluation worker's client on processes that answer from scripts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from src.config.loading import load_config
from src.config.schema import SamplingConfig
from src.data.prompts import load_prompt
from src.engine.generator import Completion
from src.eval_worker import EvalWorker
from src.evaluation import engine_process
from src.evaluation.engine_client import EvaluationError
from src.evaluation.engine_process import EngineStartError
from src.evaluation.evaluation import EvalTask, evaluate, grade_share
from src.evaluation.worker_loop import EngineStarted, EvalResult, trouble_of
from src.run.files import read_jsonl
from src.training.batching import Example
from src.training.checkpoints import Checkpoint
from utils.data.problem_generator import generate_problems

PROBLEMS = generate_problems(7, "validation", 3)
TARGETS = [Example(tuple(range(1, 5 + n)), 1 + n % 3, str(n)) for n in range(7)]
CHECKPOINT = Checkpoint(Path("step_000004"), 4, 64)
HUNG = "gave no answer for 900 s and was killed (engine.no_answer_timeout_s)"


class Scripted:
    """A process that answers its Nth request by the Nth line of the script; a text is its end."""

    def __init__(self, script: list) -> None:
        self.script, self.asked, self.gone = script, [], None
        self.allowed: list[tuple[float, str]] = []
        self.told_of_start = False

    def allow(self, seconds, setting):
        self.allowed.append((seconds, setting))

    def send(self, message):
        self.asked.append(message)

    def has_news(self):
        return bool(self.script) or self.gone is not None

    def receive(self):
        if isinstance(self.script[0], str):
            self.gone = self.script[0]
            return None
        answer = self.script.pop(0)
        return answer(self.asked.pop(0)) if callable(answer) else answer

    def stop(self, grace_s=0.0):
        self.script = []


class SeededGenerator:
    """Answers by the seed alone, as an engine with a seed a request does."""

    def stream(self, prompts, sampling, seeds):
        for index, seed in reversed(list(enumerate(seeds))):
            text = f" {seed} </think> <answer> {seed % 7} </answer>"
            yield index, Completion(text, 5 + seed % 3, truncated=False)

    def prompt_logprobs(self, ids):
        return [[-token / (7 + len(row)) for token in row[1:]] for row in ids]


def task(file=None) -> EvalTask:
    prompt = load_prompt("prompts/rl_zero.prompt")
    return EvalTask(
        "validation", PROBLEMS, prompt, SamplingConfig(), 5, samples=2, targets=TARGETS,
        completions_file=file,
    )  # fmt: skip


def scored(request):
    """Do an engine's work, but for the engine."""
    folder = str(request.checkpoint.folder)
    graded = grade_share(SeededGenerator(), task(), request.share, checkpoint=folder)
    swapped = replace(graded, seconds={"swap": 0.5, **graded.seconds})
    return EvalResult(request, {"validation": swapped}, 0.01 * (1 + request.share.index))


def raised(request):
    return EvalResult(request, trouble=trouble_of(ValueError("no such split")))


@pytest.fixture
def scripts(monkeypatch):
    """Give each process that is started the next of some scripts; return those started."""
    started: list[Scripted] = []

    def use(*waiting: list) -> list[Scripted]:
        left = list(waiting)

        def start(name, serve, arguments, allowed_s, setting, *, bell, has_children):
            bell.set()
            started.append(Scripted(left.pop(0)))
            started[-1].allow(allowed_s, setting)
            return started[-1]

        monkeypatch.setattr(engine_process, "WorkerProcess", start)
        return started

    return use


@pytest.fixture
def config():
    return load_config(["config/tiny/baseline_config.yaml"], ["engine.start_timeout_s=1800"])


READY = EngineStarted()
TASKS = {"validation": task()}


def test_starting_and_answering_have_deadlines_of_their_own(scripts, config):
    started = scripts([READY, scored])
    with EvalWorker(config, "m", TASKS) as worker:
        report = worker.evaluate(CHECKPOINT, "validation")["validation"]
    assert (report.step, report.probe_gap, report.engine_seconds) == (4, 0.01, [])
    assert started[0].allowed == [
        (1800, "engine.start_timeout_s"),
        (900, "engine.no_answer_timeout_s"),
    ]


def test_what_a_hung_worker_was_asked_another_answers(scripts, config, caplog):
    started = scripts([READY, scored, HUNG], [READY, scored, scored])
    with EvalWorker(config, "m", TASKS) as worker:
        for step in (1, 2, 3):
            worker.submit(Checkpoint(Path(f"step_{step}"), step, step), "validation")
        assert [checkpoint.step for checkpoint, _ in worker.drain()] == [1, 2, 3]
    assert len(started) == 2
    assert f"the evaluation worker {HUNG}; starting a fresh engine" in caplog.text


def test_a_checkpoint_on_which_two_workers_hang_is_a_failure_and_the_next_one_is_not(
    scripts, config
):
    scripts([READY, HUNG], [READY, HUNG], [READY, scored])
    with EvalWorker(config, "m", TASKS) as worker:
        with pytest.raises(EvaluationError, match="step_000004 on validation failed twice") as told:
            worker.evaluate(CHECKPOINT, "validation")
        assert str(told.value).endswith(HUNG)
        assert worker.evaluate(Checkpoint(Path("step_5"), 5, 5), "validation")


def test_an_engine_that_cannot_start_is_told_by_a_sentence_and_tried_once(scripts, config):
    try:
        raise ValueError("context of 4096 tokens,\n   the model has 1024")
    except ValueError as error:
        failed = EngineStarted(trouble_of(error))
    started = scripts([failed])
    with (
        EvalWorker(config, "models/m", {}) as worker,
        pytest.raises(EngineStartError) as failure,
    ):
        worker.evaluate(CHECKPOINT, "validation")
    assert str(failure.value) == (
        "the evaluation worker could not start on models/m: ValueError: context of 4096 tokens, "
        "the model has 1024"
    )
    assert "raise ValueError(" in str(failure.value.__cause__)
    assert len(started) == 1


def test_a_failed_evaluation_is_told_by_a_sentence(scripts, config):
    scripts([READY, raised])
    with (
        EvalWorker(config, "m", {}) as worker,
        pytest.raises(
            EvaluationError, match=r"^step_000004 on v could not be scored: ValueError: no such"
        ),
    ):
        worker.evaluate(CHECKPOINT, "v")


@pytest.fixture
def two(config):
    """Two engines beside a trainer that computes elsewhere."""
    devices = config.devices.model_copy(update={"train": "cpu:2", "eval": ["cpu:0", "cpu:1"]})
    return config.model_copy(update={"devices": devices})


@pytest.fixture(autouse=True)
def cores(monkeypatch):
    """Have four cores, and stay on those there are."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)


def alone(file=None):
    return evaluate(SeededGenerator(), task(file), checkpoint=str(CHECKPOINT.folder))


def same_figures(report, other):
    timed = {"seconds": {}, "tokens_per_s": 0, "engine_seconds": [], "step": 4, "probe_gap": 0}
    return replace(report, **timed) == replace(other, **timed)


def test_two_engines_give_the_report_and_the_rows_of_one(scripts, two, tmp_path):
    scripts([READY, scored], [READY, scored])
    files = [tmp_path / name / "completions.jsonl" for name in ("alone", "two")]
    for file in files:
        file.parent.mkdir()
    with EvalWorker(two, "m", {"validation": task(files[1])}) as worker:
        assert not worker.in_turn
        report = worker.evaluate(CHECKPOINT, "validation")["validation"]
    assert same_figures(report, alone(files[0]))
    assert report.nll == alone().nll  # to the last digit
    assert read_jsonl(files[1]) == read_jsonl(files[0])
    assert report.probe_gap == 0.02  # the larger one
    assert report.seconds["swap"] == 0.5
    assert len(report.engine_seconds) == 2
    assert report.metrics("validation")["validation/engine_1_s"] == report.engine_seconds[1]


def test_each_engine_has_its_share_its_device_and_its_environment(scripts, two):
    started = scripts([READY, scored], [READY, scored])
    with EvalWorker(two, "m", TASKS) as worker:
        worker.submit(CHECKPOINT, "validation")
        asked = [process.asked[0].share for process in started]
        devices = [engine._config.devices.eval for engine in worker._engines]
    assert [(share.index, share.count) for share in asked] == [(0, 2), (1, 2)]
    assert devices == ["cpu:0", "cpu:1"]


def test_an_engine_that_dies_is_replaced_alone(scripts, two, caplog):
    killed = "was killed by SIGKILL"
    started = scripts([READY, scored, scored], [READY, killed], [READY, scored, scored])
    with EvalWorker(two, "m", TASKS) as worker:
        first = worker.evaluate(CHECKPOINT, "validation")["validation"]
        second = worker.evaluate(CHECKPOINT, "validation")["validation"]
    assert len(started) == 3
    assert same_figures(first, alone())
    assert same_figures(second, alone())
    assert f"the evaluation worker on cpu:1 {killed}; starting a fresh engine" in caplog.text


def test_what_one_of_two_engines_cannot_score_is_a_failure_and_the_next_one_is_not(scripts, two):
    scripts([READY, scored, scored], [READY, raised, scored])
    with EvalWorker(two, "m", TASKS) as worker:
        with pytest.raises(EvaluationError, match="step_000004 on validation could not be scored"):
            worker.evaluate(CHECKPOINT, "validation")
        assert same_figures(worker.evaluate(CHECKPOINT, "validation")["validation"], alone())


def test_a_report_waits_for_the_slower_engine(scripts, two):
    started = scripts([READY, scored], [READY])
    with EvalWorker(two, "m", TASKS) as worker:
        worker.submit(CHECKPOINT, "validation")
        assert list(worker.finished()) == []
        started[1].script.append(scored)
        assert [checkpoint.step for checkpoint, _ in worker.finished()] == [4]


def test_what_was_discarded_is_dropped_in_each_engine(scripts, two):
    scripts([READY, scored, scored], [READY, scored, scored])
    with EvalWorker(two, "m", TASKS) as worker:
        worker.submit(Checkpoint(Path("step_1"), 1, 8), "validation")
        worker.discard()
        assert worker.evaluate(CHECKPOINT, "validation")["validation"].step == 4


def test_an_engine_without_problems_adds_nothing(scripts, two):
    """Of one problem the second engine has none."""

    def one(request):
        few = replace(task(), problems=PROBLEMS[:1], targets=())
        graded = grade_share(SeededGenerator(), few, request.share, checkpoint="step")
        return EvalResult(request, {"validation": graded})

    scripts([READY, one], [READY, one])
    few = {"validation": replace(task(), problems=PROBLEMS[:1], targets=())}
    with EvalWorker(two, "m", few) as worker:
        report = worker.evaluate(CHECKPOINT, "validation")["validation"]
    assert (report.n, report.completions, report.nll) == (1, 2, None)


def test_a_share_that_is_not_whole_is_an_error_and_no_figure(scripts, two):
    def cut(request):
        answer = scored(request)
        graded = answer.shares["validation"]
        short = replace(graded, rows=graded.rows[: -request.share.index or None])
        return replace(answer, shares={"validation": short})

    scripts([READY, cut], [READY, cut])
    with (
        EvalWorker(two, "m", TASKS) as worker,
        pytest.raises(RuntimeError, match="13 completions of 2 share.*7 problems x 2"),
    ):
        worker.evaluate(CHECKPOINT, "validation")

"""Trials with step 2's trainer and real Optuna, scored by a worker that is told what to answer."""

from __future__ import annotations

import logging
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from src.config.loading import ROOT, ConfigError, build_config, load_config, with_values
from src.config.schema import Config
from src.evaluation.engine_client import EvaluationError
from src.evaluation.figures import EvalReport
from src.run.directory import Run
from src.run.files import read_json, read_jsonl
from src.search.closing import busy_shares, close_study, closing_turn, compare, plot_study
from src.search.data import WHOLE
from src.search.pruning import best_trials, merit
from src.search.study import StudyQueue, open_study
from src.search.trials import TRIAL_FAILURES, TrialRunner, keep_best
from src.training.batching import Example
from src.training.checkpoints import Checkpoint
from tests.conftest import NO_DATA, two_layer_model

STAGE = "step1_sft_hyper"
RUNGS = [32, 64]
SETTINGS = {
    "run": {"name": "search", "seed": 3},
    "devices": {"train": "cpu", "eval": "cpu"},
    "train": {"gradient_checkpointing": False, "compute_dtype": "float32", "micro_batch_size": 16},
    "search": {
        "trials": 4,
        "startup_trials": 2,
        "examples": RUNGS[-1],
        "rung_examples": RUNGS,
        "space": {
            "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "train.batch_size": {"choices": [16, 32]},
        },
        "enqueue": [{"train.learning_rate": 1e-3, "train.batch_size": 16}],
    },
    "wandb": {"mode": "disabled"},
}


def report(correct: int, *, n: int = 100, formatted: int = 0, nll: float = 1.0) -> EvalReport:
    """Make a report; `formatted` problems beyond the correct ones are well formed."""
    wrong = formatted or (n - correct) // 2
    outcomes = {"correct": correct, "wrong_answer": wrong, "unscorable": 0}
    return EvalReport(
        split="validation",
        checkpoint="-",
        n=n,
        outcomes=outcomes | {"format_failure": n - correct - wrong},
        format_failures={},
        truncated=0,
        mean_completion_tokens=1.0,
        by_level={},
        by_type={},
        seconds={"swap": 0.001, "generate": 0.002, "grade": 0.5, "grade_wait": 0.003},
        nll=nll,
    )


class ToldWorker:
    """Answers with `answer(trial, checkpoint, split)`, `delay` looks at the mail later."""

    in_turn = False

    def __init__(self, answer, delay: int = 0) -> None:
        self.answer, self.delay = answer, delay
        self.waiting: list[list] = []
        self.submitted: list[Checkpoint] = []
        self.looks = 0

    def submit(self, checkpoint, *splits):
        assert (checkpoint.folder / "model.safetensors").is_file()
        self.submitted.append(checkpoint)
        self.waiting.append([self.delay, checkpoint, splits])

    def finished(self):
        self.looks += 1
        for item in self.waiting:
            item[0] -= 1
        while self.waiting and self.waiting[0][0] < 0:
            yield self._answer()

    def drain(self):
        while self.waiting:
            yield self._answer()

    def evaluate(self, checkpoint, *splits):
        self.submit(checkpoint, *splits)
        return self._answer()[1]

    def discard(self):
        self.waiting.clear()

    def _answer(self):
        _, checkpoint, splits = self.waiting.pop(0)
        trial = int(checkpoint.folder.parent.name.removeprefix("trial_"))
        return checkpoint, {split: self.answer(trial, checkpoint, split) for split in splits}


@pytest.fixture(scope="module")
def examples(tokenizer):
    rng = random.Random(0)
    return [
        Example(tuple(rng.randrange(3, len(tokenizer)) for _ in range(24)), 8, f"row {number}")
        for number in range(64)
    ]


@pytest.fixture
def search(tmp_path, tokenizer, examples):
    """Open a search on a 2-layer model; call it with what the worker answers."""

    def open_search(answer, *, delay=0, seed=0, **settings) -> tuple[TrialRunner, StudyQueue]:
        values = {"run.output_root": str(tmp_path)} | settings
        config = with_values(build_config(SETTINGS), values)
        run = Run(STAGE, config, resume=True)
        run.begin(data=NO_DATA, model="m")
        policy = two_layer_model(tokenizer, tied=True, seed=seed)
        worker = ToldWorker(answer, delay)
        runner = TrialRunner(run, policy, tokenizer, examples, worker)
        return runner, open_study(run.folder, config, TRIAL_FAILURES)

    yield open_search
    for handler in [h for h in logging.getLogger().handlers if hasattr(h, "baseFilename")]:
        logging.getLogger().removeHandler(handler)


def work(runner: TrialRunner, queue: StudyQueue) -> None:
    queue.work(runner, lambda: keep_best(queue, runner.run.config.search.rescore_top))


def rising(trial, checkpoint, split):
    return report(10 * trial + checkpoint.examples_seen // 16)


def test_trials_start_from_the_same_weights_and_see_the_same_data(search):
    """Two trials with the same hyperparameters have the same losses, whatever ran before."""
    point = {"train.learning_rate": 1e-3, "train.batch_size": 16}
    other = {"train.learning_rate": 1e-2, "train.batch_size": 32}
    runner, queue = search(rising, **{"search.enqueue": [point, other, point]})
    work(runner, queue)
    losses = [
        [row["train/loss"] for row in metrics(runner, number) if "train/loss" in row]
        for number in range(3)
    ]
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]


def test_tied_weights_are_kept_once_and_restored(search):
    runner, _ = search(rising)
    before = {name: tensor.clone() for name, tensor in runner.policy.state_dict().items()}
    copies = {tensor.data_ptr() for tensor in runner._initial.values()}
    assert len(copies) == len(before) - 1
    for parameter in runner.policy.parameters():
        parameter.data.add_(1.0)
        parameter.grad = parameter.data.clone()
    runner.restore()
    after = runner.policy.state_dict()
    assert all(after[name].equal(tensor) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in runner.policy.parameters())


def metrics(runner: TrialRunner, trial: int) -> list[dict]:
    return read_jsonl(runner.run.folder / "trials" / f"trial_{trial:03d}" / "metrics.jsonl")


def test_each_trial_has_a_metrics_file_on_the_axis_of_examples(search):
    runner, queue = search(rising)
    work(runner, queue)
    for trial in queue.trials():
        rows = metrics(runner, trial.number)
        size = trial.params["train.batch_size"]
        assert {row["trial"] for row in rows} == {trial.number}
        trained = [row["step"] for row in rows if "train/loss" in row]
        assert trained == list(range(size, RUNGS[-1] + 1, size))
        assert [row["step"] for row in rows if "trial/value" in row] == RUNGS
        assert sum("search/memory_gib" in row for row in rows) == 1


def test_training_goes_on_while_a_rung_is_scored_and_ends_when_the_answer_comes(search):
    """Trial 1 is worse at the first rung; it hears so some steps later, long before the second."""
    points = [{"train.learning_rate": rate, "train.batch_size": 16} for rate in (1e-3, 2e-3)]
    changes = {
        "search.enqueue": points,
        "search.trials": 2,
        "search.examples": 1024,
        "search.rung_examples": [32, 1024],
    }
    runner, queue = search(lambda trial, *_: report(50 - 20 * trial), delay=1, **changes)
    work(runner, queue)
    assert [trial.state.name for trial in queue.trials()] == ["COMPLETE", "PRUNED"]
    trained = [row["step"] for row in metrics(runner, 1) if "train/loss" in row]
    assert 32 < trained[-1] < 1024
    assert runner.worker.submitted[-1].examples_seen == 32
    assert runner.worker.waiting == []


def test_without_overlap_no_step_is_made_before_the_answer(search):
    points = [{"train.learning_rate": rate, "train.batch_size": 16} for rate in (1e-3, 2e-3)]
    changes = {"search.enqueue": points, "search.trials": 2, "search.overlap": False}
    runner, queue = search(lambda trial, *_: report(50 - 20 * trial), delay=9, **changes)
    work(runner, queue)
    assert [row["step"] for row in metrics(runner, 1) if "train/loss" in row] == [16, 32]
    assert runner.worker.looks == 0


def test_only_the_best_checkpoints_of_the_top_trials_are_kept(search):
    def answer(trial, checkpoint, split):
        # The first rung is each trial's best; trials 3 and 1 are the best two.
        better = checkpoint.examples_seen == RUNGS[0]
        return report([40, 60, 50, 70][trial] + better)

    # Every trial may go on: with factor 2 the first rung prunes trial 2 alone.
    runner, queue = search(answer, **{"search.rescore_top": 2})
    work(runner, queue)
    folder = runner.run.folder / "trials"
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*step_*"))
    best = best_trials(queue, 2)
    assert [trial.number for trial in best] == [3, 1]
    assert kept == [
        f"trial_{trial.number:03d}/step_{RUNGS[0] // trial.params['train.batch_size']:06d}"
        for trial in sorted(best, key=lambda trial: trial.number)
    ]
    keep_best(queue, 0)
    assert not list(folder.glob("*/*step_*"))
    assert len(list(folder.glob("*/metrics.jsonl"))) == 4


def test_ties_go_to_the_format_rate_then_to_the_loss():
    accuracy = "validation_accuracy"
    assert merit(report(50, formatted=30), accuracy) > merit(report(50, formatted=20), accuracy)
    assert merit(report(50, nll=0.5), accuracy) > merit(report(50, nll=0.6), accuracy)
    assert merit(report(51, formatted=1), accuracy) > merit(report(50, formatted=30), accuracy)
    assert merit(report(10, nll=0.5), "eval_loss") > merit(report(50, nll=0.6), "eval_loss")
    with pytest.raises(FloatingPointError, match=r"validation loss nan; lower train\.learning"):
        merit(report(50, nll=math.nan), accuracy)


def test_the_loss_can_be_the_objective(search):
    nll = [1.5, 1.2, 1.9, 1.4]
    runner, queue = search(
        lambda trial, *_: report(10, nll=nll[trial]), **{"search.objective": "eval_loss"}
    )
    work(runner, queue)
    outcome = close_study(runner.run, queue, runner.worker)
    assert outcome["best"]["number"] == 1
    assert outcome["best"]["value"] == outcome["best"]["nll"] == 1.2
    assert outcome["best"]["accuracy"] == 0.1


def test_failures_of_trials_are_recorded_and_leave_the_next_trial_whole(search):
    def answer(trial, checkpoint, split):
        if trial == 1:
            raise EvaluationError("the engine died twice")
        return rising(trial, checkpoint, split)

    runner, queue = search(answer)
    work(runner, queue)
    assert queue.failed() == {1: "EvaluationError: the engine died twice"}
    assert len(queue.trials("COMPLETE", "PRUNED")) == 3
    outcome = close_study(runner.run, queue, runner.worker)
    assert (outcome["trials"], outcome["failed"]) == (4, 1)
    assert outcome["failures"] == {"1": "EvaluationError: the engine died twice"}


def test_closing_scores_the_top_again_on_all_of_validation_and_chooses_by_that(search):
    whole = {3: 300, 2: 350, 1: 200, 0: 100}

    def answer(trial, checkpoint, split):
        return report(whole[trial], n=1000) if split == WHOLE else report(20 + 10 * trial)

    runner, queue = search(answer, **{"search.rescore_top": 2})
    work(runner, queue)
    outcome = close_study(runner.run, queue, runner.worker)
    folder = runner.run.folder
    assert [entry["number"] for entry in outcome["rescored"]] == [2, 3]
    best = outcome["best"]
    assert (best["number"], best["accuracy"], best["n"]) == (2, 0.35, 1000)
    assert best["value"] == 0.4
    assert best["accuracy_ci95"][0] < 0.35 < best["accuracy_ci95"][1]
    overlay = yaml.safe_load((folder / "best.yaml").read_text())
    params = queue.trials()[2].params
    assert overlay["train"]["learning_rate"] == params["train.learning_rate"]
    assert overlay["train"]["batch_size"] == params["train.batch_size"]
    assert outcome["difference"]["between"] == [2, 3]
    assert not outcome["difference"]["flat"]
    assert 0 < outcome["busy"]["train"] < 1
    assert 0 < outcome["busy"]["eval"] < 1
    assert (folder / "study.png").read_bytes().startswith(b"\x89PNG")
    assert len((folder / "trials.csv").read_text().splitlines()) == 5
    assert len((folder / "rescored.csv").read_text().splitlines()) == 3
    curve = read_jsonl(folder / "metrics.jsonl")
    assert [row["step"] for row in curve] == [0, 1, 2, 3]
    assert all(row["search/memory_gib"] > 0 for row in curve)


class Trial:
    def __init__(self, number: int, **attributes: float) -> None:
        self.number, self.user_attrs = number, attributes


def test_a_flat_optimum_is_said_to_be_flat(caplog):
    from src.search.closing import Rescored

    caplog.set_level(logging.INFO)
    near = [Rescored(Trial(4), report(200, n=500)), Rescored(Trial(7), report(190, n=500))]
    difference = compare(near)
    assert difference["flat"]
    assert difference["points"] == pytest.approx(2.0)
    low, high = difference["ci95"]
    assert low < 0 < 2.0 < high
    assert "the optimum is flat: trials 4 and 7" in caplog.text
    far = [Rescored(Trial(4), report(300, n=500)), Rescored(Trial(7), report(190, n=500))]
    assert not compare(far)["flat"]
    assert compare(near[:1]) is None


def test_busy_shares_are_of_the_trials_own_time():
    trials = [
        Trial(0, train_s=6.0, eval_s=3.0, wall_s=10.0),
        Trial(1, train_s=2.0, eval_s=5.0, wall_s=10.0),
        Trial(2),  # its process died
    ]
    assert busy_shares(trials) == {"train": 0.4, "eval": 0.4}


def test_of_several_engines_each_has_its_share():
    trials = [
        Trial(0, train_s=6.0, eval_s=3.0, engines_s=[2.0, 4.0], wall_s=10.0),
        Trial(1, train_s=2.0, eval_s=5.0, engines_s=[4.0, 6.0], wall_s=10.0),
    ]
    assert busy_shares(trials) == {"train": 0.4, "eval": 0.4, "engine_0": 0.3, "engine_1": 0.5}


def test_a_study_without_a_completed_trial_has_no_best(search):
    def answer(*_):
        raise EvaluationError("no engine")

    runner, queue = search(answer, **{"search.max_failed_trials": 4})
    work(runner, queue)
    with pytest.raises(RuntimeError, match="no trial was completed.*no engine"):
        close_study(runner.run, queue, runner.worker)


def test_a_study_is_closed_by_one_process(search, caplog):
    caplog.set_level(logging.INFO)
    runner, _ = search(rising)
    with closing_turn(runner.run) as mine:
        assert mine
        runner.run.finish(checkpoint=None)
    with closing_turn(runner.run) as mine:
        assert not mine
    assert "another process has closed the study" in caplog.text


def test_plots_need_no_completed_trial(search, tmp_path):
    _, queue = search(rising)
    plot_study(queue, tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 5_000


@pytest.mark.slow
def test_fifty_trials_leave_nothing_in_memory(search):
    """Each trial builds an optimizer and writes checkpoints; none of that may outlive it."""
    changes = {"search.trials": 50, "search.rung_examples": [64], "search.startup_trials": 50}
    runner, queue = search(rising, **changes)
    work(runner, queue)
    memory = [trial.user_attrs["memory_gib"] for trial in queue.trials()]
    assert len(memory) == 50
    print("GiB at the start of every tenth trial:", [round(value, 4) for value in memory[::10]])
    # The policy with its optimizer is 2 MB: were one kept a trial, this would be 80.
    assert (memory[49] - memory[9]) * 1024 < 25


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ({"train.learning_rate": 0.5}, r"train\.learning_rate = 0\.5 .*5e-06 to 0\.0001"),
        ({"train.batch_size": 48}, r"train\.batch_size = 48 .*one of \[32, 64, 128, 256\]"),
        ({"train.batch_size": 64.0}, r"train\.batch_size = 64\.0 "),
        ({"train.learning_rate": True}, r"train\.learning_rate = True "),
        ({"train.epochs": 1}, r"train\.epochs = 1: this path is not in search\.space"),
    ],
)
def test_known_good_points_must_lie_in_the_space(point, says):
    config = build_config({"search": {"enqueue": [{"train.batch_size": 64}, point]}})
    problems = "\n".join(config.search_problems())
    assert problems.startswith("search.enqueue[1]")
    assert re.search(says, problems), problems


def test_other_mistakes_in_the_search_are_said_before_anything_is_loaded():
    space = {"train.lr": {"low": 1e-5, "high": 1e-4}}
    search = {"space": space, "trials": 1, "enqueue": [{}, {}]}
    storage = "postgresql://me:secret@host/studies"
    config = build_config({"search": search | {"storage": storage}})
    problems = list(config.search_problems())
    assert [problem.split(":")[0] for problem in problems] == [
        "search.enqueue",
        "search.space",
        "search.storage",
    ]
    assert "secret" not in "".join(problems)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ("train.epochs: {choices: [1, 3]}", "train.epochs: no trial reads it for itself; search "),
        ("train.gradient_checkpointing: {choices: [true, false]}", "no trial reads it for itself"),
        ("grpo.learning_rate: {low: 1e-6, high: 1e-5}", "grpo.learning_rate: no setting of train"),
        ("train.adapter: {choices: [none, lora]}", "all trials share one loaded model"),
        ("train.batch_size: {low: 8, high: 64}", "8.0: input should be a valid integer; list whol"),
        ("train.learning_rate: {low: 0, high: 1e-4}", "0.0: input should be greater than 0"),
        ("train.optimizer: {choices: [adamw, sgd]}", "'sgd': input should be 'adamw'"),
        ("train.batch_size: {choices: [0, x, 64]}", "train.batch_size: 0: input should be greater"),
    ],
)
def test_a_search_space_that_no_trial_can_follow(space, says):
    given = [f"search.space={{{space}}}", "search.enqueue=[]"]
    problems = list(load_config(["config/sft_hyper_config.yaml"], given).search_problems())
    assert len(problems) == 1
    assert problems[0].startswith("search.space: ")
    assert says in problems[0]


def test_a_fixed_batch_size_must_divide_the_rungs():
    given = ["search.space={train.weight_decay: {low: 0, high: 0.1}}", "search.enqueue=[]"]
    config = load_config(["config/sft_hyper_config.yaml"], [*given, "train.batch_size=100"])
    assert "not multiples of batch size 100" in next(config.search_problems())


@pytest.mark.parametrize(
    "file", sorted((ROOT / "config").rglob("sft_hyper_config.yaml"), key=str), ids=str
)
def test_shipped_configurations_search_what_they_may(file):
    config = load_config([file])
    assert list(config.search_problems()) == []
    assert config.search.enqueue


def shared_run(folder: Path, **changes: object) -> Run:
    values = {"run.output_root": str(folder), "search.shared": True} | changes
    return Run(STAGE, with_values(Config(), values))


JOIN = """
import sys
from src.config.loading import with_values
from src.config.schema import Config
from src.run.directory import Run
from tests.conftest import NO_DATA
values = {"run.output_root": sys.argv[1], "search.shared": True}
Run("step1_sft_hyper", with_values(Config(), values)).begin(data=NO_DATA, model="m")
"""


def test_a_shared_search_is_joined_and_not_moved_aside(tmp_path):
    command = [sys.executable, "-c", JOIN, str(tmp_path)]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    folder = shared_run(tmp_path).folder
    assert [path.name for path in folder.parent.iterdir()] == [STAGE]
    assert len(list(folder.glob("run-*.log"))) == 2
    own = sorted(folder.glob("manifest-*.json"))
    assert len(own) == 2
    assert read_json(folder / "manifest.json") in [read_json(file) for file in own]
    began = (folder / "config.yaml").read_text()
    elsewhere = {"devices.train": "cuda:2", "devices.eval": "cuda:3"}
    shared_run(tmp_path, **elsewhere).begin(data=NO_DATA, model="m")
    assert (folder / "config.yaml").read_text() == began
    with pytest.raises(ConfigError, match="a shared search needs the configuration"):
        shared_run(tmp_path, **{"search.trials": 9}).begin(data=NO_DATA, model="m")

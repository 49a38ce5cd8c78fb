"""The queue of trials with real Optuna: each planned trial runs once, whoever dies on the way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback as Retry

from src.config.loading import ConfigError, build_config
from src.run.files import append_jsonl, read_jsonl
from src.search.study import FailedTrialsError, StudyQueue, TrialPruned, open_study

SPACE = {"train.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}
RATE = "train.learning_rate"


def open_queue(folder: Path, *, failures: tuple = (), **search: object) -> StudyQueue:
    """Open a small study; `search` overrides its settings."""
    settings = {"trials": 6, "startup_trials": 2, "space": SPACE, "heartbeat_s": 1}
    config = build_config({"search": settings | search})
    queue = open_study(folder, config)
    queue.failures, queue.poll_s = failures, 0.05
    return queue


def objective(trial: optuna.Trial) -> float:
    return -abs(trial.suggest_float(RATE, 1e-5, 1e-3, log=True) - 1e-4)


def nothing() -> None:
    return None


def storage(kind: str, folder: Path) -> str | None:
    return None if kind == "journal" else f"sqlite:///{folder}/study.db"


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_exactly_the_planned_trials_run_and_known_good_points_come_first(tmp_path, kind):
    points = [{RATE: 2e-5}, {RATE: 5e-5}]
    queue = open_queue(tmp_path, enqueue=points, storage=storage(kind, tmp_path))
    assert len(queue.trials("WAITING")) == 6
    queue.work(objective, nothing)
    trials = queue.trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert [trial.params for trial in trials[:2]] == points
    assert len({trial.params[RATE] for trial in trials}) == 6
    queue.work(objective, nothing)
    assert len(queue.trials()) == 6


@pytest.mark.parametrize("opened_before", [False, True])
def test_a_journal_whose_last_line_is_torn_loses_no_finished_trial(tmp_path, opened_before):
    """By a process that was killed, or by a full disk; another one may have it open meanwhile."""
    queue = open_queue(tmp_path)
    for _ in range(3):
        queue._take(objective)
    before = [trial.value for trial in queue.trials("COMPLETE")]
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"gone","trial_id":3,"user_at')
    if not opened_before:
        queue = open_queue(tmp_path)
    queue.work(objective, nothing)
    again = open_queue(tmp_path).trials("COMPLETE")
    assert [trial.value for trial in again][:3] == before
    assert len(again) == 6


def test_proposals_do_not_depend_on_who_takes_the_trial(tmp_path):
    """One process, or a new one for each trial: the same values."""
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    whole = open_queue(tmp_path / "one")
    whole.work(objective, nothing)
    for _ in range(6):
        queue = open_queue(tmp_path / "many")
        queue._take(objective)
    values = [[trial.params for trial in each.trials()] for each in (whole, queue)]
    assert values[0] == values[1]


def test_a_study_whose_creator_died_is_planned_to_its_end(tmp_path, monkeypatch):
    real, calls = optuna.Study.enqueue_trial, []

    def dies_at_the_third(study, point):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(point)
        real(study, point)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            open_queue(tmp_path, enqueue=[{RATE: 2e-5}])
    queue = open_queue(tmp_path, enqueue=[{RATE: 2e-5}])
    assert [trial.system_attrs["fixed_params"] for trial in queue.trials("WAITING")] == [
        {RATE: 2e-5}, {}, {}, {}, {}, {}
    ]  # fmt: skip


def test_a_failed_trial_is_recorded_with_its_reason_and_the_study_goes_on(tmp_path):
    def fails_at_2(trial):
        if trial.number == 2:
            raise FloatingPointError("step 3: loss nan; lower train.learning_rate")
        return objective(trial)

    queue = open_queue(tmp_path, failures=(FloatingPointError,))
    queue.work(fails_at_2, nothing)
    assert len(queue.trials("COMPLETE")) == 5
    assert queue.failed() == {2: "FloatingPointError: step 3: loss nan; lower train.learning_rate"}
    assert queue.interrupted() == []


def test_too_many_failures_end_the_study_with_reasons_and_a_remedy(tmp_path):
    def fails(trial):
        raise MemoryError(f"no room for trial {trial.number}")

    queue = open_queue(tmp_path, failures=(MemoryError,), max_failed_trials=1)
    with pytest.raises(FailedTrialsError) as refusal:
        queue.work(fails, nothing)
    message = str(refusal.value)
    assert "2 trials failed and search.max_failed_trials is 1" in message
    assert "trial 0: MemoryError: no room for trial 0" in message
    assert "trial 1: MemoryError: no room for trial 1" in message
    assert "train.micro_batch_size" in message
    # A process that joins later hears the same.
    with pytest.raises(FailedTrialsError):
        open_queue(tmp_path, failures=(MemoryError,), max_failed_trials=1).work(fails, nothing)
    assert len(queue.trials("FAIL")) == 2


def test_a_failure_in_the_last_trial_counts_too(tmp_path):
    def fails_at_5(trial):
        if trial.number == 5:
            raise MemoryError
        return objective(trial)

    queue = open_queue(tmp_path, failures=(MemoryError,), max_failed_trials=0)
    with pytest.raises(FailedTrialsError):
        queue.work(fails_at_5, nothing)


def test_an_interrupted_trial_waits_again_with_its_values_and_is_no_failure(tmp_path):
    def interrupted_at_2(trial):
        value = objective(trial)
        trial.report(value, 512)
        trial.should_prune()
        if trial.number == 2:
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        open_queue(tmp_path, max_failed_trials=0).work(interrupted_at_2, nothing)
    queue = open_queue(tmp_path, max_failed_trials=0)
    queue.work(objective, nothing)
    assert len(queue.trials("COMPLETE")) == 6
    assert [trial.number for trial in queue.interrupted()] == [2]
    retry = next(trial for trial in queue.trials() if Retry.retry_history(trial))
    assert (retry.number, Retry.retry_history(retry)) == (6, [2])
    assert retry.params == queue.trials()[2].params
    assert not any(name.startswith("completed_rung") for name in retry.system_attrs)


def test_a_trial_that_kills_every_process_fails_in_the_end(tmp_path):
    def dies(trial):
        if (
            trial.params.get(RATE) == 2e-5
            or trial.suggest_float(RATE, 1e-5, 1e-3, log=True) == 2e-5
        ):
            raise KeyboardInterrupt
        return objective(trial)

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            open_queue(tmp_path, enqueue=[{RATE: 2e-5}]).work(dies, nothing)
    queue = open_queue(tmp_path, enqueue=[{RATE: 2e-5}])
    queue.work(dies, nothing)
    assert len(queue.trials("COMPLETE")) == 5
    assert list(queue.failed().values()) == ["its process died, as it did in 3 attempts before"]


def test_asha_prunes_after_equal_numbers_of_examples(tmp_path):
    def with_rungs(trial):
        value = objective(trial)
        for examples in (512, 1024):
            trial.report(value, examples)
            if trial.should_prune():
                raise TrialPruned
        return value

    queue = open_queue(tmp_path, trials=12)
    queue.work(with_rungs, nothing)
    pruned = queue.trials("PRUNED")
    assert pruned
    assert len(pruned) + len(queue.trials("COMPLETE")) == 12
    assert max(trial.value for trial in pruned) < queue.study.best_value


def test_a_trial_that_was_given_away_is_dropped_here(tmp_path):
    """A process silent for too long finds its trial taken over; it goes on with the next."""
    queue = open_queue(tmp_path)

    def taken_away(trial):
        if trial.number == 0:
            queue.study.tell(0, state=optuna.trial.TrialState.FAIL)
        return objective(trial)

    queue.work(taken_away, nothing)
    assert len(queue.trials("COMPLETE")) == 6
    assert [trial.number for trial in queue.interrupted()] == [0]


def test_an_error_of_the_objective_is_not_swallowed(tmp_path):
    def wrong(trial):
        raise ValueError("a mistake in the code")

    with pytest.raises(ValueError, match="a mistake in the code"):
        open_queue(tmp_path).work(wrong, nothing)


def test_a_run_that_starts_over_gets_a_study_of_its_own_in_the_database(tmp_path):
    url = storage("sqlite", tmp_path)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        queue = open_queue(tmp_path / name, storage=url)
        assert len(queue.trials("WAITING")) == 6
        queue.work(objective, nothing)


def test_a_database_that_cannot_be_used_is_named_with_a_remedy(tmp_path):
    for url in ("nosuch://host/db", "not a URL", f"sqlite:///{tmp_path}/no/such/folder.db"):
        with pytest.raises(ConfigError, match="cannot be used: start the database") as refusal:
            open_queue(tmp_path, storage=url)
        assert f"search.storage: {url}" in str(refusal.value)


def test_a_launcher_of_several_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"without accelerate.*search\.shared=true"):
        open_queue(tmp_path)


def work_in_a_process(folder: Path, search: dict, victim: bool) -> None:
    """Work on the study, and write down each trial begun and ended.

    The victim never ends its second trial; the others' first ones last until it is there. None
    takes a trial before all three have started.
    """
    own = {"begin": 0}
    (folder / f"started-{os.getpid()}").touch()
    wait_until(lambda: len(list(folder.glob("started-*"))) == 3)
    stuck = folder / "victim_is_stuck"

    def slow(trial):
        begun = {"pid": os.getpid(), "trial": trial.number, "value": objective(trial)}
        own["begin"] += 1
        append_jsonl(folder / "log.jsonl", [begun | {"event": "begin"}])
        if victim and own["begin"] == 2:
            stuck.write_text(str(trial.number))
        while (victim and own["begin"] == 2) or not (victim or stuck.exists()):
            time.sleep(0.02)
        append_jsonl(folder / "log.jsonl", [begun | {"event": "end"}])
        return begun["value"]

    open_queue(folder, **search).work(slow, nothing)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_three_processes_one_killed_lose_and_repeat_nothing(tmp_path, kind):
    search = {"trials": 15, "storage": storage(kind, tmp_path), "enqueue": [{RATE: 2e-5}]}
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=work_in_a_process, args=(tmp_path, search, number == 0))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    wait_until((tmp_path / "victim_is_stuck").exists)
    processes[0].kill()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, 0, 0]

    rows = read_jsonl(tmp_path / "log.jsonl")
    lost = [row for row in rows if row["pid"] == processes[0].pid][-1]
    queue = open_queue(tmp_path, **search)
    assert [trial.number for trial in queue.interrupted()] == [lost["trial"]]
    assert len(queue.trials("COMPLETE")) == 15
    assert len(queue.trials()) == 16
    assert queue.failed() == {}
    retry = next(trial for trial in queue.trials() if Retry.retry_history(trial))
    assert retry.value == lost["value"]
    begun = [row["trial"] for row in rows if row["event"] == "begin"]
    assert sorted(begun) == list(range(16))
    ended = [row["trial"] for row in rows if row["event"] == "end"]
    assert sorted(ended) == [number for number in range(16) if number != lost["trial"]]
    assert len({row["pid"] for row in rows}) == 3


def wait_until(condition) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited 60 s in vain")

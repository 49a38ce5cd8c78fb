"""A study that any number of processes work on: each planned trial runs once, and none is lost.

The only module that imports optuna. All trials wait in the study's storage before the first begins,
known-good points first; TPE fills the others in when they are taken. A trial whose process died
waits again with the same values. No process is the master: whoever looks for work does what is due.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna import Trial
from optuna import TrialPruned as TrialPruned
from optuna.storages import RetryHeartbeatStaleTrialCallback as Retry
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from src.config.loading import ConfigError
from src.config.schema import Config
from src.config.training import SearchConfig
from src.run.files import drop_torn_line, file_lock
from src.run.processes import process_count
from src.search.life import HeartbeatLife, LockedLife, TrialLife, study_name
from src.search.patience import Patience

LOGGER = logging.getLogger(__name__)
Objective = Callable[[Trial], float]

_MAX_RETRIES = 3
_FAILURE = "failure"
# What may be asked of a database twice: reading, and storing the same again.
_REPEATED = (
    "get_trial", "get_all_trials", "_get_trials", "_get_stale_trial_ids",
    "get_trial_id_from_study_id_trial_number", "get_study_id_from_name", "get_study_name_from_id",
    "get_study_directions", "get_study_user_attrs", "get_study_system_attrs",
    "get_trial_user_attrs", "get_trial_system_attrs", "set_study_user_attr",
    "set_study_system_attr", "set_trial_param", "_set_trial_param", "set_trial_state_values",
    "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr",
    "record_heartbeat",
)  # fmt: skip


class _Journal(JournalFileBackend):
    """Optuna's journal, for processes that may die in the middle of a line.

    Optuna reads past an unfinished last line, but would add the next one to it, and then nobody
    could read the journal again.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines, after taking off what a killed process left of one."""
        with get_lock_file(self._lock):
            drop_torn_line(Path(self._file_path))
        super().append_logs(logs)


class FailedTrialsError(RuntimeError):
    """More trials failed than the search allows."""


@dataclass
class StudyQueue:
    """The study as one process sees it.

    Attributes:
        failures: exceptions that fail a trial and not the study.
        poll_s: seconds between two looks at what other processes are running.
    """

    study: optuna.Study
    life: TrialLife
    folder: Path
    search: SearchConfig
    seed: int
    patience: Patience | None = None
    failures: tuple[type[Exception], ...] = ()
    poll_s: float = 2.0

    def work(self, objective: Objective, after_trial: Callable[[], None]) -> None:
        """Run waiting trials until none waits or runs in any process.

        Args:
            after_trial: called when a trial of this process has its final state.

        Raises:
            FailedTrialsError: with the reasons and a remedy.
        """
        while self._unfinished():
            if self._take(objective):
                after_trial()
            else:
                time.sleep(self.poll_s)
        self._check_failures()

    def trials(self, *states: str) -> list[FrozenTrial]:
        """List the trials in the given states, such as `COMPLETE`; all without a state."""
        wanted = tuple(TrialState[state] for state in states) or None
        return self.study.get_trials(states=wanted)

    def interrupted(self) -> list[FrozenTrial]:
        """List the trials that ended with their process and were, or will be, queued again."""
        return [trial for trial in self.trials("FAIL") if _is_interrupted(trial)]

    def failed(self) -> dict[int, str]:
        """Return the reason of each trial that failed for good."""
        died = f"its process died, as it did in {_MAX_RETRIES} attempts before"
        return {
            trial.number: trial.user_attrs.get(_FAILURE, died)
            for trial in self.trials("FAIL")
            if not _is_interrupted(trial)
        }

    def importances(self) -> dict[str, float]:
        """Return each parameter's share; empty with too few completed trials to tell."""
        complete = self.trials("COMPLETE")
        if len(complete) < 3 or len({trial.value for trial in complete}) < 2:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(self.study, evaluator=evaluator)

    def _unfinished(self) -> bool:
        # One look at all: a trial queued again between two looks would be in neither.
        trials = self.trials()
        return any(not trial.state.is_finished() for trial in trials) or bool(_lost(trials))

    def _take(self, objective: Objective) -> bool:
        """Run the next waiting trial to its end; return False where none waits."""
        with ExitStack() as running, ExitStack() as taking:
            # Held until the trial gives a sign of life, so that its holder sees no trial between.
            taking.enter_context(file_lock(self.folder / "queue.lock"))
            self._requeue_interrupted()
            self._check_failures()
            if not self.trials("WAITING"):
                return False

            def guarded(trial: Trial) -> float:
                # Lasts until optuna has stored the trial's final state.
                running.enter_context(self.life.shown(trial))
                taking.close()
                self.study.sampler = _sampler(self.search, self.seed + trial.number)
                return self._run(objective, trial)

            try:
                self.study.optimize(guarded, n_trials=1, catch=self.failures)
            except ValueError as error:
                if not str(error).startswith("Cannot tell a"):
                    raise
                LOGGER.warning("this process was silent for so long that its trial runs elsewhere")
        return True

    def _run(self, objective: Objective, trial: Trial) -> float:
        try:
            return objective(trial)
        except self.failures as error:
            reason = f"{type(error).__name__}: {error}"
            LOGGER.warning("trial %d failed: %s", trial.number, reason)
            trial.set_user_attr(_FAILURE, reason[:2000])
            raise

    def _requeue_interrupted(self) -> None:
        """Queue again what dead processes left; needs the queue's lock."""
        patience = self.patience
        if patience is not None and patience.heartbeats_count(self.search.heartbeat_s):
            optuna.storages.fail_stale_trials(self.study)
        for trial in self.trials("RUNNING"):
            with self.life.is_gone(trial) as gone:
                if gone:
                    self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        for trial in _lost(self.trials()):
            # Without the rungs of the first attempt, which the second would be taken to have seen.
            kept = ("fixed_params", "failed_trial", "retry_history")
            trial.system_attrs = {k: v for k, v in trial.system_attrs.items() if k in kept}
            trial.user_attrs = {}
            Retry()(self.study, trial)
            LOGGER.warning("trial %d ended with its process; its values wait again", trial.number)

    def _check_failures(self) -> None:
        failed, allowed = self.failed(), self.search.max_failed_trials
        if len(failed) > allowed:
            reasons = "\n".join(f"  trial {number}: {text}" for number, text in failed.items())
            raise FailedTrialsError(
                f"{len(failed)} trials failed and search.max_failed_trials is {allowed}:\n"
                f"{reasons}\nLower train.micro_batch_size where memory ran out, narrow "
                "search.space where the loss was not finite, or allow more; then start over "
                "without --resume, or under another run.name where the study is shared"
            )


def open_study(
    folder: Path, config: Config, failures: tuple[type[Exception], ...] = ()
) -> StudyQueue:
    """Create the study with all its trials waiting, or join it; the folder tells which it is.

    Raises:
        ConfigError: under a launcher, or when the database cannot be used.
    """
    search = config.search
    if process_count() > 1:
        raise ConfigError(
            "step 1 trains each trial in one process: start it without accelerate or torchrun, and "
            "for more devices start it several times with --set search.shared=true"
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    with file_lock(folder / "queue.lock"):
        storage, life, patience = _open_storage(folder, search)
        study = optuna.create_study(
            study_name=study_name(folder, config.run.name),
            storage=storage,
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=search.rung_examples[0], reduction_factor=search.reduction_factor
            ),
        )
        # By count, so that whoever comes next goes on where a process died half-way.
        planned = [trial for trial in study.get_trials() if not Retry.retry_history(trial)]
        points: list[dict[str, Any]] = [*search.enqueue, *([{}] * search.trials)]
        for point in points[len(planned) : search.trials]:
            study.enqueue_trial(point)
    finished = sum(trial.state.is_finished() for trial in planned)
    LOGGER.info("study %s: %d of %d trials finished", study.study_name, finished, search.trials)
    return StudyQueue(study, life, folder, search, config.run.seed, patience, failures)


def _is_interrupted(trial: FrozenTrial) -> bool:
    # A trial that failed by itself names its failure.
    by_itself = trial.state != TrialState.FAIL or _FAILURE in trial.user_attrs
    return not by_itself and len(Retry.retry_history(trial)) < _MAX_RETRIES


def _lost(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """List the interrupted trials that do not wait again yet."""
    queued = {number for trial in trials for number in Retry.retry_history(trial)}
    return [trial for trial in trials if _is_interrupted(trial) and trial.number not in queued]


def _sampler(search: SearchConfig, seed: int) -> optuna.samplers.TPESampler:
    """Return TPE with a trial's own seed: no two processes draw the same random start."""
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=search.startup_trials, multivariate=True
    )


def _open_storage(
    folder: Path, search: SearchConfig
) -> tuple[optuna.storages.BaseStorage, TrialLife, Patience | None]:
    if search.storage is None:
        journal = _Journal(str(folder / "study.journal"))
        return optuna.storages.JournalStorage(journal), LockedLife(folder), None
    # A trial lasts longer than servers keep idle connections.
    options: dict[str, Any] = {"pool_pre_ping": True}
    try:
        if make_url(search.storage).get_backend_name() == "sqlite":
            options["connect_args"] = {"timeout": 60}
        database = optuna.storages.RDBStorage(
            search.storage, engine_kwargs=options, heartbeat_interval=search.heartbeat_s
        )
    except (ImportError, SQLAlchemyError) as error:
        raise ConfigError(
            f"search.storage: {search.storage} cannot be used: start the database, mend the URL or "
            "the password in ~/.pgpass, or install the driver (pip install -r "
            f"requirements/postgresql.txt for postgresql://user@host:5432/database). {error}"
        ) from None
    patience = Patience(
        search.storage, optuna.exceptions.UpdateFinishedTrialError, database.remove_session
    )
    for name in _REPEATED:
        setattr(database, name, patience.over(getattr(database, name)))
    return database, HeartbeatLife(database.record_heartbeat), patience

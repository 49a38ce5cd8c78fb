"""An evaluation engine's own side: one vLLM engine that scores checkpoints as they are asked for.

Whatever goes wrong in here travels to the client as an answer. Between its engine's steps, and
between the parts of its other work, the loop shows that it goes on.
"""

from __future__ import annotations

import logging
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from src.config.schema import Config
from src.engine.swap_verifier import StaleWeightsError, SwapVerifier, check_numbers
from src.evaluation.evaluation import EvalTask, Graded, Share, grade_share
from src.evaluation.worker_process import Mailbox
from src.output.lines import log_of_rest, log_to_terminal
from src.output.streams import is_apart
from src.run.stopping import end_with_parent
from src.training.checkpoints import Checkpoint, verify_checkpoint
from src.training.policy import load_tokenizer
from utils.drgrpo_grader import set_children

if TYPE_CHECKING:
    from src.engine.vllm_engine import VllmEngine

LOGGER = logging.getLogger(__name__)
# Characters of an exception's text that are told.
_LONGEST_TOLD = 400


@dataclass(frozen=True, slots=True)
class Trouble:
    """An exception of the worker's: what it says in one line, and where it came from."""

    told: str
    trace: str


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """One checkpoint to score on some splits, or a share of them."""

    number: int
    checkpoint: Checkpoint
    splits: tuple[str, ...]
    share: Share = Share()


@dataclass(frozen=True, slots=True)
class EngineStarted:
    """The worker's first answer: its engine is ready, or why it could not start."""

    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class EvalResult:
    """The answer to a request: what the engine made of each split, or why it could not.

    `probe_gap` is None where nothing was swapped; `wants_fresh_engine` asks the client to start the
    engine again on this checkpoint.
    """

    request: EvalRequest
    shares: dict[str, Graded] | None = None
    probe_gap: float | None = None
    trouble: Trouble | None = None
    wants_fresh_engine: bool = False


def serve(config: Config, model: str, tasks: Mapping[str, EvalTask], mailbox: Mailbox) -> None:
    """Answer requests until the client is gone."""
    known, sleeps = dict(tasks), config.engine.sleep == "on"

    def begin(engine: VllmEngine) -> Callable[[Any], EvalResult | None]:
        verifier = SwapVerifier(engine, config.engine.swap_tolerance, model)
        if sleeps:
            engine.sleep()

        def answer(message: EvalRequest | EvalTask) -> EvalResult | None:
            if isinstance(message, EvalTask):
                known[message.name] = message
                return None
            wake = engine.wake if sleeps else None
            scored = score_files(message, known, verifier, mailbox.beat, wake)
            if sleeps:
                engine.sleep()  # before the trainer goes on
            return scored

        return answer

    serve_engine("evaluation engine", config, model, mailbox, begin)


def serve_engine(
    name: str,
    config: Config,
    model: str,
    mailbox: Mailbox,
    begin: Callable[[VllmEngine], Callable[[Any], Any]],
) -> None:
    """Start an engine, say so, and answer messages until the client is gone.

    Args:
        begin: the engine -> what turns a message into its answer; None sends none.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    log_to_terminal(verbose=not is_apart())
    if is_apart():
        logging.getLogger().addHandler(log_of_rest())
    try:
        started = time.perf_counter()
        set_children(config.grader.children)
        try:
            # Imported here: the client's process never needs vLLM.
            from src.engine.vllm_engine import VllmEngine  # noqa: PLC0415

            tokenizer = load_tokenizer(model, config)
            engine = VllmEngine(model, config, tokenizer, after_step=mailbox.beat)
            check_numbers(engine, model)
            answer = begin(engine)
        except Exception as error:  # noqa: BLE001 - the worker's boundary
            mailbox.send(EngineStarted(trouble_of(error)))
            return
        mailbox.send(EngineStarted())
        seconds = time.perf_counter() - started
        LOGGER.info("%s on %s ready in %.1f s", name, config.devices.eval, seconds)
        while True:
            if (answered := answer(mailbox.take())) is not None:
                mailbox.send(answered)
    except (EOFError, BrokenPipeError):
        return


def trouble_of(error: Exception) -> Trouble:
    """Describe an exception.

    >>> trouble_of(ValueError("too\\n  long")).told
    'ValueError: too long'
    """
    if isinstance(error, ValidationError):  # vLLM's settings; the rest of its text is pydantic's
        told = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
    else:
        told = f"{type(error).__name__}: {error}"
    told = _brief(" ".join(told.split()))
    if "max_model_len" in told:
        told += " (max_model_len is engine.max_model_tokens)"
    return Trouble(told, "".join(traceback.format_exception(error)))


def _brief(text: str) -> str:
    """Cut a long text at the end of a sentence; the traceback has all of it."""
    if len(text) <= _LONGEST_TOLD:
        return text
    head, stop, _ = text[:_LONGEST_TOLD].rpartition(". ")
    return f"{head}." if stop else f"{text[:_LONGEST_TOLD]} ..."


def score_files(
    request: EvalRequest,
    tasks: Mapping[str, EvalTask],
    verifier: SwapVerifier,
    beat: Callable[[], None],
    wake: Callable[[], None] | None = None,
) -> EvalResult:
    """Score one checkpoint; whatever goes wrong travels to the client."""
    folder = request.checkpoint.folder
    try:
        started = time.perf_counter()
        if wake is not None:
            wake()
        verify_checkpoint(folder)
        beat()
        gap = verifier.load(folder)
        seconds = {"swap": time.perf_counter() - started}
        shares = {}
        for split in request.splits:
            beat()
            graded = grade_share(
                verifier.engine, tasks[split], request.share, checkpoint=str(folder), beat=beat
            )
            shares[split] = replace(graded, seconds=seconds | graded.seconds)
            seconds = {"swap": 0.0}  # one swap serves all splits
        return EvalResult(request, shares, gap)
    except StaleWeightsError as error:
        return EvalResult(request, trouble=trouble_of(error), wants_fresh_engine=True)
    except Exception as error:  # noqa: BLE001 - the worker's boundary: failures become answers
        return EvalResult(request, trouble=trouble_of(error))

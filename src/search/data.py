"""What a hyperparameter search scores its trials on, and what it trains them on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config.schema import Config
from src.data.prompts import PromptTemplate
from src.eval_worker import EvalWorker
from src.evaluation.evaluation import EvalTask
from src.run.directory import Run
from src.run.files import file_lock
from src.sft.examples import build_examples
from src.sft.rejection_sampling import draw_traces, select_traces, trace_task
from src.sft.rows import SftRow, rows_from_problems
from src.stages.scoring import validation_task
from src.training.checkpoints import Checkpoint
from src.training.policy import resolve_model
from utils.dataset_loader import ProblemSet

RUNG, WHOLE = "validation", "validation_whole"


def search_tasks(
    config: Config,
    problems: ProblemSet,
    prompt: PromptTemplate,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, EvalTask]:
    """Return the validation subset that rungs are scored on, and the whole split for the end.

    The second has a split name, and so sampling seeds, of its own: the best trials are not measured
    again with the very luck that made them the best. The loss, where it only breaks ties, is
    measured on `train.loss_rows` solutions.
    """
    tasks = {}
    sizes = {RUNG: config.search.validation_rows, WHOLE: len(problems.validation)}
    for split, size in sizes.items():
        losses = size if config.search.objective == "eval_loss" else config.train.loss_rows
        rows = rows_from_problems(problems.validation[: min(size, losses)], prompt)
        targets = build_examples(rows, tokenizer, config.train.max_tokens, "all").examples
        task = validation_task(config, problems, prompt, size, targets)
        tasks[split] = replace(task, split=split)
    return tasks


def drawn_rows(
    run: Run, problems: ProblemSet, prompt: PromptTemplate, worker: EvalWorker
) -> list[SftRow]:
    """Return the base model's correct completions; the first process that asks draws them."""
    base = Checkpoint(Path(resolve_model(run.config.model.path)), 0, 0)
    task = trace_task(run.config, problems, prompt, run.folder, 1)
    with file_lock(run.folder / "traces.lock"):
        traces = draw_traces(worker, base, task)
    return select_traces([traces], prompt, run.config.sft.max_per_problem).rows

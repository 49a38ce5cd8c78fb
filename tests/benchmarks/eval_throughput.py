"""Tokens a second of our evaluation, grading included, beside vLLM's own offline `LLM.generate`.

    python -m tests.benchmarks.eval_throughput --rows math_train.jsonl.gz   # 3 minutes on 2 cores
    python -m tests.benchmarks.eval_throughput --quick

Both run in one engine, in turn, on the same prompts with the same sampling and the same seeds, and
their completions are compared: both must do the same work. The tiny base is first taught the answer
format on the same kind of rows, so that there are answers to grade. The prefix cache is emptied
before every pass.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from src.config.schema import Config
from tests.benchmarks.processes import TINY, benchmark_config, engine_process, training_process
from tests.benchmarks.table import Row, alternate, listed, parser, report
from tests.benchmarks.workload import read_problems, rows_said, write_checkpoints

if TYPE_CHECKING:
    from src.evaluation.evaluation import EvalTask
    from src.evaluation.figures import EvalReport

GOAL = ">= 0.95"


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over all prompts; `grading_s` runs beside generation, `waiting_s` after it."""

    tokens: int
    seconds: float
    grading_s: float = 0.0
    waiting_s: float = 0.0
    format_rate: float = 0.0

    @property
    def per_s(self) -> float:
        """Generated tokens a second."""
        return self.tokens / self.seconds


def main() -> None:
    given = parser(__doc__).parse_args()
    report(measure(given.rows, given.quick), given.output)


def measure(rows: Path | None, quick: bool) -> list[Row]:
    """Compare on the tiny base."""
    prompts, rounds, steps = (64, 1, 1) if quick else (1000, 3, 30)
    with TemporaryDirectory() as folder:
        values = {"train.learning_rate": 3e-4, "train.max_tokens": 384}
        config = benchmark_config(TINY, values)
        arguments = (config, rows, [steps], Path(folder))
        (checkpoint,) = training_process(config, write_checkpoints, *arguments)
        found = engine_process(config, passes, config, checkpoint.folder, rows, prompts, rounds)
    ours = found["ours"]
    seconds = sum(one.seconds for one in ours)
    return [
        Row(
            "eval_throughput, the tiny base",
            "vLLM's LLM.generate in the same engine, ungraded",
            median(one.per_s for one in ours) / median(one.per_s for one in found["vllm"]),
            GOAL,
            f"tokens/s: ours {listed([one.per_s for one in ours], '.0f')}, vLLM "
            f"{listed([one.per_s for one in found['vllm']], '.0f')}; {prompts} prompts of "
            f"{rows_said(rows)}, {ours[0].tokens} tokens, {ours[0].format_rate:.0%} well formed; "
            f"grading took {sum(one.grading_s for one in ours) / seconds:.1%} of the time beside "
            f"generation and {sum(one.waiting_s for one in ours) / seconds:.2%} after it",
        )
    ]


def passes(
    config: Config, checkpoint: Path, rows: Path | None, prompts: int, rounds: int
) -> dict[str, list[Pass]]:
    """Build the engine, warm it up and run both sides in turn."""
    from src.engine.vllm_engine import VllmEngine
    from src.training.policy import load_tokenizer

    engine = VllmEngine(str(checkpoint), config, load_tokenizer(str(checkpoint), config))
    task = fitting_task(engine, config, rows, prompts)
    texts = [_texts(engine, task), [row["completion"] for row in _report(engine, task).samples]]
    if texts[0][: len(texts[1])] != texts[1]:
        raise RuntimeError("the two sides generated different completions")
    sides = {"ours": lambda: our_pass(engine, task), "vllm": lambda: vllm_pass(engine, task)}
    return alternate(sides, rounds)


def fitting_task(engine: Any, config: Config, rows: Path | None, count: int) -> EvalTask:
    """Return an evaluation of `count` problems that leave room for a whole completion."""
    from src.data.prompts import load_prompt
    from src.evaluation.evaluation import EvalTask

    prompt, problems = load_prompt(config.data.prompt), read_problems(rows, 4 * count)
    room = config.engine.max_model_tokens - config.sampling.max_completion_tokens
    ids = engine.token_ids([prompt.render(problem) for problem in problems])
    chosen = [problem for problem, row in zip(problems, ids, strict=True) if len(row) <= room]
    if len(chosen) < count:
        raise ValueError(f"{len(chosen)} prompts fit {room} tokens; {count} are needed")
    return EvalTask("benchmark", chosen[:count], prompt, config.sampling, seed=17)


def our_pass(engine: Any, task: EvalTask) -> Pass:
    """Generate, grade and count."""
    engine._llm.reset_prefix_cache()
    started = time.perf_counter()
    scored = _report(engine, task)
    seconds = time.perf_counter() - started
    tokens = round(scored.mean_completion_tokens * scored.completions)
    spent = scored.seconds
    return Pass(tokens, seconds, spent["grade"], spent["grade_wait"], scored.format_rate)


def vllm_pass(engine: Any, task: EvalTask) -> Pass:
    """Generate alone."""
    engine._llm.reset_prefix_cache()
    started = time.perf_counter()
    outputs = _generated(engine, task)
    seconds = time.perf_counter() - started
    return Pass(sum(len(output.outputs[0].token_ids) for output in outputs), seconds)


def _report(engine: Any, task: EvalTask) -> EvalReport:
    from src.evaluation.evaluation import evaluate

    return evaluate(engine, task, checkpoint="benchmark")


def _texts(engine: Any, task: EvalTask) -> list[str]:
    return [output.outputs[0].text for output in _generated(engine, task)]


def _generated(engine: Any, task: EvalTask) -> list[Any]:
    from src.engine.generator import sample_seed
    from src.engine.vllm_engine import sampling_parameters

    seeds = [sample_seed(task.seed, task.split, problem.unique_id) for problem in task.problems]
    prompts = [task.prompt.render(problem) for problem in task.problems]
    parameters = [sampling_parameters(task.sampling, seed) for seed in seeds]
    return engine._llm.generate(prompts, parameters, use_tqdm=False)


if __name__ == "__main__":
    main()

"""The benchmarks that a model may be scored on beside the project's own test problems.

Each has a data set, a prompt, a way of sampling and a number of samples of its own, by what others
report; docs/benchmarks.md says where each number comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from src.config.training import ColumnNames, Positive, Section

BenchmarkName = Literal["math500", "aime24", "aime25", "amc23", "minerva", "olympiad", "gsm8k"]
StageName = Literal["step0_baseline", "step2_sft", "step3_GRPO"]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Where a benchmark's problems are, and how it is usually asked."""

    source: str
    """As `data.test_file`."""
    problems: int
    """In the published set."""
    samples: int = 1
    """Completions a problem."""
    temperature: float = 0.0
    top_p: float = 1.0
    max_completion_tokens: int = 3072
    prompt: str = "boxed"
    """A name in prompts/, or a file."""


def _sampled(source: str, problems: int, samples: int) -> Benchmark:
    return Benchmark(source, problems, samples, temperature=0.6, top_p=0.95)


BENCHMARKS: dict[str, Benchmark] = {
    "math500": _sampled("hub:HuggingFaceH4/MATH-500::test", 500, 4),
    "aime24": _sampled("hub:HuggingFaceH4/aime_2024::train", 30, 32),
    "aime25": _sampled("hub:yentinglin/aime_2025::train", 30, 32),
    "amc23": _sampled("hub:math-ai/amc23::test", 40, 32),
    "minerva": Benchmark("hub:math-ai/minervamath::test", 272),
    "olympiad": Benchmark("hub:Hothan/OlympiadBench:OE_TO_maths_en_COMP:train", 674),
    "gsm8k": Benchmark("hub:openai/gsm8k:main:test", 1319, max_completion_tokens=1024),
}
_ASKED = ("samples", "temperature", "top_p", "max_completion_tokens", "prompt")


class BenchmarkSettings(Section):
    samples: Positive | None = None
    """Completions a problem; None for the benchmark's own."""
    temperature: float | None = Field(default=None, ge=0)
    """Softmax temperature; 0 is greedy. None for the benchmark's own."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus mass; None for the benchmark's own."""
    max_completion_tokens: Positive | None = None
    """Longest completion, in tokens; None for the benchmark's own."""
    prompt: str | None = None
    """Prompt: a name in prompts/, or a file. None for `evaluation.benchmark_prompt`."""
    columns: ColumnNames = ColumnNames()
    """Names of its columns, where they are not recognised."""


class BenchmarkConfig(Section):
    """The part of `evaluation` that says which benchmarks are run, and how."""

    benchmarks: list[BenchmarkName] = []
    """Benchmarks to run at the end of the pipeline, and with `evaluate_model.py --benchmarks`."""
    benchmark_files: dict[BenchmarkName, str] = {}
    """Where a benchmark's problems are instead of on the hub, named as `data.test_file`."""
    benchmark_settings: dict[BenchmarkName, BenchmarkSettings] = {}
    """What a benchmark is asked with instead of its own prompt, sampling and samples."""
    benchmark_prompt: str | None = None
    """Prompt of all benchmarks; None for their own, which ask for a box. A model that was trained
    here answers in the manner of `data.prompt`: name that."""
    benchmark_rows: Positive | None = None
    """Problems of each benchmark, its first; None for all."""
    benchmark_stages: list[StageName] = ["step0_baseline", "step3_GRPO"]
    """Whose models the pipeline runs the benchmarks on at its end."""

    def benchmark(self, name: str) -> Benchmark:
        """Return a benchmark as this configuration wants it."""
        own, settings = BENCHMARKS[name], self.settings_of(name)
        changed: dict[str, Any] = {field: getattr(settings, field) for field in _ASKED}
        changed["prompt"] = settings.prompt or self.benchmark_prompt
        files = {str(key): file for key, file in self.benchmark_files.items()}
        changed["source"] = files.get(name)
        given = {field: value for field, value in changed.items() if value is not None}
        return replace(own, **given)

    def settings_of(self, name: str) -> BenchmarkSettings:
        """Return what is set for one benchmark."""
        settings = {str(key): value for key, value in self.benchmark_settings.items()}
        return settings.get(name, BenchmarkSettings())

    def benchmark_problems(self) -> Iterator[str]:
        """Say what is set for a benchmark that is asked for twice."""
        twice = sorted({name for name in self.benchmarks if self.benchmarks.count(name) > 1})
        if twice:
            yield f"evaluation.benchmarks: {', '.join(twice)} twice; name each once"

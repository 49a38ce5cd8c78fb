"""How each benchmark is asked, from the configuration alone; loads no model library."""

from __future__ import annotations

from collections.abc import Iterator

from src.config.schema import Config, SamplingConfig

# Of the engine's context, what a completion may take at most; the rest is the prompt's.
_COMPLETION_SHARE = 0.75


def benchmark_sampling(config: Config, name: str) -> SamplingConfig:
    """Return how a benchmark is sampled; completions are as long as the engine's context allows."""
    wanted = config.evaluation.benchmark(name)
    room = int(config.engine.max_model_tokens * _COMPLETION_SHARE)
    return SamplingConfig(
        temperature=wanted.temperature,
        top_p=wanted.top_p,
        max_completion_tokens=min(wanted.max_completion_tokens, room),
        stop=config.sampling.stop,
        samples=wanted.samples,
    )


def describe_benchmarks(config: Config) -> Iterator[str]:
    """Say in a line for each benchmark what is asked, for `--dry-run`."""
    for name in config.evaluation.benchmarks:
        wanted = config.evaluation.benchmark(name)
        tokens = benchmark_sampling(config, name).max_completion_tokens
        problems = min(wanted.problems, config.evaluation.benchmark_rows or wanted.problems)
        yield (
            f"benchmark     {name}: {problems} problems x {wanted.samples}, prompt "
            f"{wanted.prompt}, T {wanted.temperature:g}, top_p {wanted.top_p:g}, at most {tokens} "
            f"new tokens, from {wanted.source}"
        )

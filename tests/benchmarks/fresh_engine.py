"""Time a new vLLM engine from its construction to its first token, imports not counted.

    python -m tests.benchmarks.fresh_engine CHECKPOINT CONFIG PROMPT

Started by `swap_latency` with vLLM's own process layout or ours; prints the seconds.
"""

from __future__ import annotations

import sys
import time

from src.engine.vllm_engine import LLM, engine_arguments, sampling_parameters
from tests.benchmarks.processes import benchmark_config


def main(checkpoint: str, config_file: str, prompt: str) -> None:
    config = benchmark_config(config_file, {"sampling.max_completion_tokens": 1})
    started = time.perf_counter()
    llm = LLM(**engine_arguments(checkpoint, config))
    llm.generate([prompt], sampling_parameters(config.sampling, seed=1), use_tqdm=False)
    print(f"seconds {time.perf_counter() - started:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run vLLM engines in processes of their own: vLLM does not give memory back."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from src.config.loading import load_config
from src.config.schema import Config
from src.run.processes import worker_environment
from src.training.policy import load_tokenizer

# The full profile's type; the tiny one computes in float32.
BFLOAT16 = "engine.dtype=bfloat16"


def in_engine_process(
    task: Callable[..., Any], *arguments: Any, config: Config | None = None
) -> Any:
    """Call `task(*arguments)` in a fresh process with the evaluation worker's environment.

    Args:
        config: of the worker. Without one the process is forked from a server with the tiny one's
            environment, which has imported vLLM (ten seconds) and has done nothing else.
    """
    method = "forkserver" if config is None else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["src.engine.vllm_engine"])
    with (
        worker_environment(config or tiny_config()),
        # An executor's process may have children.
        ProcessPoolExecutor(1, context) as pool,
    ):
        return pool.submit(task, *arguments).result()


def tiny_config(*settings: str) -> Config:
    return load_config(["config/tiny/baseline_config.yaml"], settings)


def fresh_logprobs(folder: Path, ids: list[list[int]]) -> list[list[float]]:
    """Return the log-probabilities of an engine that has never held other weights."""
    from src.engine.vllm_engine import VllmEngine

    tokenizer = load_tokenizer(str(folder), tiny_config())
    return VllmEngine(str(folder), tiny_config(BFLOAT16), tokenizer).prompt_logprobs(ids)


def swapped_logprobs(first: Path, second: Path, ids: list[list[int]]) -> list[list[float]]:
    """Return the log-probabilities after `second` was swapped in for `first`."""
    from src.engine import vllm_engine

    tokenizer = load_tokenizer(str(first), tiny_config())
    engine = vllm_engine.VllmEngine(str(first), tiny_config(BFLOAT16), tokenizer)
    before = engine.prompt_logprobs(ids)  # fills the prefix cache with the first model's values
    engine.swap(second)
    after = engine.prompt_logprobs(ids)
    assert after != before
    return after


def verified_loads(
    first: Path, second: Path, plant: str, config: Config | None = None
) -> list[str]:
    """Load two checkpoints through the verifier with one failure planted; return what it said."""
    from src.engine import vllm_engine
    from src.engine.swap_verifier import StaleWeightsError, SwapVerifier

    if plant == "swap does nothing":
        vllm_engine.swap_weights = lambda *_: None
    tokenizer = load_tokenizer(str(first), tiny_config())
    engine = vllm_engine.VllmEngine(str(first), config or tiny_config(BFLOAT16), tokenizer)
    if plant == "output layer stays":
        _keep_output_layer(vllm_engine, engine)
    verifier = SwapVerifier(engine, tolerance=0.05, loaded=str(first))
    said = []
    for folder in (first, second):
        try:
            verifier.load(folder)
            said.append("verified")
        except StaleWeightsError as error:
            said.append(str(error))
    return said


def _keep_output_layer(vllm_engine: Any, engine: Any) -> None:
    """Let the output layer compute with its first weights for ever, as a packed copy would.

    Which processors pack it differs, so the copy is made here.
    """
    import torch

    head = vllm_engine._model_runner(engine._llm).get_model().lm_head
    old = head.weight.detach().clone()
    assert old.numel()

    def stays(layer: Any, **_: Any) -> None:
        layer.cpu_linear = lambda x, weight, bias: torch.nn.functional.linear(x, old, bias)

    vllm_engine.dispatch_cpu_unquantized_gemm = stays


def sampled(folder: Path, prompts: list[list[int]], seeds: list[int]) -> list[list[int]]:
    """Return the token ids of one seeded sample a prompt."""
    from src.engine.vllm_engine import VllmEngine

    tokenizer = load_tokenizer(str(folder), tiny_config())
    engine = VllmEngine(str(folder), tiny_config(BFLOAT16), tokenizer)
    pool = engine.rollouts(tiny_config().sampling, min_tokens=4)
    for key, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        pool.add(key, prompt, seed)
    rollouts = dict(pool.ended())
    return [rollouts[key].ids for key in range(len(prompts))]

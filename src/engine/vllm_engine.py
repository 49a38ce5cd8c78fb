"""The vLLM engine: generation, prompt log-probabilities and in-place weight swaps.

The only module that imports vllm. The engine runs inside the calling process (one engine a process,
one process an engine: vLLM does not give memory back).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from vllm import LLM, RequestOutput, SamplingParams
from vllm.inputs import TokensPrompt
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
from vllm.sampling_params import RequestOutputKind

from src.config.schema import Config, SamplingConfig
from src.data.token_ids import prompt_ids
from src.engine.generator import Completion, Rollout
from src.engine.layer_check import Tensors, differing_layers, layers_unlike
from src.engine.own_classes import engine_classes
from src.run.devices import device_index

LOGGER = logging.getLogger(__name__)

# vLLM rewinds a seeded request's generator when its prompt was prefilled in part, which torch's CPU
# generator cannot do ("CPU Generator does not use offset"); whole prompts never need it.
CPU_ARGUMENTS = {"enforce_eager": True, "enable_chunked_prefill": False}


class VllmEngine:
    """One vLLM engine whose weights are swapped in place.

    Args:
        tokenizer: the trainer's, so that both cut a prompt alike and end at the same token.
        after_step: called after every step of the engine, in which sequences go on by a token.
    """

    def __init__(
        self,
        model: str,
        config: Config,
        tokenizer: PreTrainedTokenizerBase,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        arguments, self._tokenizer = engine_arguments(model, config), tokenizer
        trusted = config.model.trust_remote_code
        with engine_classes(type(AutoConfig.from_pretrained(model, trust_remote_code=trusted))):
            self._llm = LLM(**arguments)
        self._after_step = after_step

    @classmethod
    def around(cls, llm: LLM, tokenizer: PreTrainedTokenizerBase) -> VllmEngine:
        """Wrap an engine that somebody else built, such as TRL."""
        engine = cls.__new__(cls)
        engine._llm, engine._tokenizer, engine._after_step = llm, tokenizer, lambda: None
        return engine

    def swap(self, checkpoint: Path) -> None:
        """Load another checkpoint of the same architecture into the running engine."""
        swap_weights(self._llm, checkpoint)

    def sleep(self) -> None:
        """Give the GPU's memory back; the weights wait in the host's."""
        self._llm.sleep(level=1)

    def wake(self) -> None:
        """Be as before the sleep, with an empty KV cache."""
        self._llm.wake_up()

    def differing_layers(self, checkpoint: Path) -> list[str]:
        """List the layers that hold other weights than a checkpoint, to the bit."""
        executor = self._llm.llm_engine.model_executor
        found = executor.collective_rpc(_differing_in_worker, args=(checkpoint,))
        return sorted({layer for layers in found for layer in layers})

    def prompt_logprobs(self, ids: Sequence[list[int]]) -> list[list[float]]:
        """Return the log-probability of each token after the first, in nats."""
        return prompt_logprobs(self._llm, ids, self._after_step)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts as prompts."""
        return prompt_ids(self._tokenizer, texts)

    def rollouts(self, sampling: SamplingConfig, min_tokens: int) -> VllmRolloutPool:
        """Return a pool of rollouts that this engine samples."""
        return VllmRolloutPool(
            self._llm, sampling, min_tokens, self._further_ends(), self._after_step
        )

    def stream(
        self, prompts: Sequence[str], sampling: SamplingConfig, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Complete each prompt once, with its own seed; yield (index, completion) as they end.

        A prompt that fills the engine's context has no room for a completion: it counts as an empty
        one that was cut.
        """
        limit = self._llm.model_config.max_model_len
        requests, ends = _Requests(self._llm, self._after_step), self._further_ends()
        for index, ids in enumerate(self.token_ids(prompts)):
            if len(ids) >= limit:
                yield index, Completion(text="", tokens=0, truncated=True)
            else:
                parameters = sampling_parameters(sampling, seeds[index], stop_token_ids=ends)
                requests.add(index, ids, parameters)
        for index, output in requests.ended():
            yield index, _completion(output)

    def _further_ends(self) -> list[int]:
        """Return the end of a chat's turn, where vLLM would not stop at it by itself."""
        end = self._tokenizer.eos_token_id
        return [] if end == self._llm.get_tokenizer().eos_token_id else [end]


class VllmRolloutPool:
    """Rollouts that one engine samples together; more may join while others run.

    Args:
        min_tokens: of a rollout, before the end of text may be sampled.
        ends: tokens that end one beside the end of text.
    """

    def __init__(
        self,
        llm: LLM,
        sampling: SamplingConfig,
        min_tokens: int,
        ends: Sequence[int] = (),
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        self._requests = _Requests(llm, after_step)
        self._sampling, self._ends = sampling, list(ends)
        self._min_tokens = min_tokens

    def add(self, key: int, prompt_ids: list[int], seed: int) -> None:
        """Begin a rollout under a key of the caller's."""
        parameters = sampling_parameters(
            self._sampling, seed, logprobs=0, min_tokens=self._min_tokens,
            stop_token_ids=self._ends,
        )  # fmt: skip
        self._requests.add(key, prompt_ids, parameters)

    def ended(self) -> Iterator[tuple[int, Rollout]]:
        """Yield (key, rollout) as they end, until none is running."""
        for key, output in self._requests.ended():
            yield key, _rollout(output)


class _Requests:
    """Requests of one caller to an engine, by numbers of its own."""

    def __init__(self, llm: LLM, after_step: Callable[[], None] = lambda: None) -> None:
        self._engine, self._after_step = llm.llm_engine, after_step
        self._keys: dict[str, int] = {}

    def add(self, key: int, prompt_ids: list[int], parameters: SamplingParams) -> None:
        name = f"request-{key}"
        self._keys[name] = key
        own = self._engine.add_request(name, TokensPrompt(prompt_token_ids=prompt_ids), parameters)
        # Nobody reads the text that vLLM would give each scored token, one at a time: a sixth of
        # the time to sample from a small model. The completion's text is made elsewhere.
        if scores := self._engine.output_processor.request_states[own].logprobs_processor:
            scores.tokenizer = None

    def ended(self) -> Iterator[tuple[int, RequestOutput]]:
        try:
            while self._engine.has_unfinished_requests():
                outputs = self._engine.step()
                self._after_step()
                for output in outputs:
                    yield self._keys.pop(output.request_id), output
        finally:
            self._engine.abort_request(list(self._keys))
            self._keys.clear()


def engine_arguments(model: str, config: Config) -> dict[str, Any]:
    """Return the arguments of vLLM's LLM for an engine's own configuration."""
    engine = config.engine
    given = config.devices.eval
    on_gpu = device_index(given if isinstance(given, str) else given[0], "devices.eval") is not None
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_tokens,
        "max_num_seqs": engine.max_sequences,
        "tensor_parallel_size": engine.tensor_parallel,
        "enforce_eager": engine.enforce_eager,
        "seed": config.run.seed,
        "trust_remote_code": config.model.trust_remote_code,
        # Scores must be those of the distribution that is sampled from.
        "logprobs_mode": "processed_logprobs",
    }
    if not on_gpu:
        arguments |= CPU_ARGUMENTS
    else:
        arguments["enable_sleep_mode"] = engine.sleep == "on"
        arguments["gpu_memory_utilization"] = engine.memory_fraction
    return arguments


def sampling_parameters(sampling: SamplingConfig, seed: int, **more: Any) -> SamplingParams:
    """Return vLLM's parameters for one completion."""
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_completion_tokens,
        stop=[sampling.stop] if sampling.stop else None,
        include_stop_str_in_output=True,
        seed=seed,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **more,
    )


def prompt_logprobs(
    llm: LLM, ids: Sequence[list[int]], after_step: Callable[[], None] = lambda: None
) -> list[list[float]]:
    """Return the engine's log-probability of each token after the first, in nats."""
    requests = _Requests(llm, after_step)
    parameters = SamplingParams(
        temperature=0.0, max_tokens=1, prompt_logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY
    )
    for key, row in enumerate(ids):
        requests.add(key, row, parameters.clone())
    scores = {key: output.prompt_logprobs for key, output in requests.ended()}
    return [
        [entry[token].logprob for entry, token in zip(scores[key][1:], row[1:], strict=True)]
        for key, row in enumerate(ids)
    ]


def swap_weights(llm: LLM, weights: Path | Iterable[tuple[str, torch.Tensor]]) -> None:
    """Replace a running engine's weights from a folder or from named tensors.

    vLLM's own `load_weights` fails on layers its CPU backend has packed; `reload_weights` unpacks
    and packs them again, all but a tied output layer, whose packed copy would silently stay.
    """
    llm.llm_engine.model_executor.collective_rpc(_load_in_worker, args=(weights,))
    if not llm.reset_prefix_cache():
        raise RuntimeError(
            "the engine kept keys and values of the weights before the swap: requests still run"
        )


def stale_layers(llm: LLM, tensors: Tensors) -> list[str]:
    """List the layers of a running engine that hold other weights than a policy, to the bit."""
    return layers_unlike(_model_runner(llm).get_model(), tensors)


def _model_runner(llm: LLM) -> Any:
    return llm.llm_engine.model_executor.driver_worker.model_runner


def _load_in_worker(worker: Any, weights: Path | Iterable[tuple[str, torch.Tensor]]) -> None:
    """Load weights in a process of the engine; each keeps its part of them."""
    runner = worker.model_runner
    named = _read_tensors(weights) if isinstance(weights, Path) else weights
    runner.reload_weights(weights_iterator=_cast(named, runner.model_config.dtype))
    # Always: vLLM unties a model whose files hold both tensors in its configuration, and ties their
    # equal weights again, so the configuration does not tell.
    if runner.device.type == "cpu":
        model = runner.get_model()
        head = model.lm_head if hasattr(model, "lm_head") else model.model.embed_tokens  # Gemma-2
        dispatch_cpu_unquantized_gemm(head, remove_weight=False)


def _differing_in_worker(worker: Any, checkpoint: Path) -> list[str]:
    return differing_layers(worker.model_runner.get_model(), checkpoint)


def _read_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                yield name, tensors.get_tensor(name)


def _cast(
    weights: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in weights:
        yield name, tensor.detach().to(dtype)


def _completion(output: RequestOutput) -> Completion:
    sampled = output.outputs[0]
    return Completion(
        text=sampled.text,
        tokens=len(sampled.token_ids),
        truncated=sampled.finish_reason == "length",
    )


def _rollout(output: RequestOutput) -> Rollout:
    sampled = output.outputs[0]
    ids = list(sampled.token_ids)
    scores = [entry[token].logprob for entry, token in zip(sampled.logprobs, ids, strict=True)]
    return Rollout(ids, scores, sampled.text, sampled.finish_reason == "stop")

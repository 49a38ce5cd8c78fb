"""A vLLM server as GRPO's engine: rollouts over HTTP, weights over NCCL (`grpo.mode: server`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.config.schema import SamplingConfig
from src.data.token_ids import prompt_ids
from src.engine.generator import Completion, Rollout
from src.engine.server_requests import RECEIVE, ServerError, bound_requests, server_answers

LOGGER = logging.getLogger(__name__)
_REQUESTS_AT_ONCE = 256


class CompletionServer(Protocol):
    """What TRL's client of `vllm serve` offers."""

    def generate(self, prompts: list[list[int]], **arguments: Any) -> dict[str, Any]:
        """Complete prompts; return `completion_ids` and `logprobs`."""

    def get_sequence_logprobs(
        self, sequences: list[list[int]], prompt_lengths: list[int], top_logprobs: int
    ) -> dict[str, Any]:
        """Score given sequences from their `prompt_lengths` on; return `actual_logprobs`."""

    def update_named_params(
        self,
        metadata: list[tuple[str, str, list[int]]],
        named_params: Iterator[tuple[str, torch.Tensor]],
    ) -> None:
        """Send weights to the server."""

    def reset_prefix_cache(self) -> None:
        """Forget what was computed with earlier weights."""


class BoundedServer:
    """A server whose answers have a deadline; a failure is told by a sentence.

    Args:
        client: TRL's, whose session it bounds; what TRL itself asks for is bounded too.
    """

    def __init__(self, client: Any, url: str, timeout_s: float) -> None:
        self._client, self._url, self._timeout_s = client, url, timeout_s
        bound_requests(client.session, timeout_s)
        self._post = client._post
        client._post = self._checked_post

    def answers(self) -> AbstractContextManager[None]:
        """Return a context in which the server is asked for something."""
        return server_answers(self._url, self._timeout_s)

    def _checked_post(self, url: str, **arguments: Any) -> Any:
        """Ask the server as TRL does, and take no failure for a success."""
        try:
            with self.answers():
                answer = self._post(url, **arguments)
        except Exception as error:
            if url.endswith(RECEIVE):
                # The main thread is sending them meanwhile, over NCCL, which waits for ever for a
                # server that does not listen, and which nothing interrupts.
                LOGGER.critical(
                    "the server did not take the weights, so the run ends: %s; its own log says "
                    "why, then --resume goes on", error, exc_info=error,
                )  # fmt: skip
                os._exit(1)
            raise
        if url.endswith("/reset_prefix_cache") and not answer.get("success", True):
            raise ServerError(
                f"the vLLM server at {self._url} is busy and keeps what it computed with earlier "
                "weights; let nobody else use it, start it again, then --resume goes on"
            )
        return answer

    def generate(self, prompts: list[list[int]], **arguments: Any) -> dict[str, Any]:
        """Complete prompts; return `completion_ids` and `logprobs`."""
        with self.answers():
            return self._client.generate(prompts, **arguments)

    def get_sequence_logprobs(
        self, sequences: list[list[int]], prompt_lengths: list[int], top_logprobs: int
    ) -> dict[str, Any]:
        """Score given sequences from their `prompt_lengths` on; return `actual_logprobs`."""
        with self.answers():
            return self._client.get_sequence_logprobs(sequences, prompt_lengths, top_logprobs)

    def update_named_params(
        self,
        metadata: list[tuple[str, str, list[int]]],
        named_params: Iterator[tuple[str, torch.Tensor]],
    ) -> None:
        """Send weights to the server."""
        with self.answers():
            self._client.update_named_params(metadata, named_params)

    def reset_prefix_cache(self) -> None:
        """Forget what was computed with earlier weights."""
        with self.answers():
            self._client.reset_prefix_cache()


class ServerEngine:
    """The server behind the interface that evaluation and swap verification ask for.

    Args:
        context: longest prompt plus completion that the server takes, in tokens.
        device: that weights are sent from.
    """

    def __init__(
        self,
        server: CompletionServer,
        tokenizer: PreTrainedTokenizerBase,
        context: int,
        device: torch.device,
    ) -> None:
        self._server, self._tokenizer = server, tokenizer
        self._context, self._device = context, device

    def swap(self, checkpoint: Path) -> None:
        """Send a checkpoint's weights to the server."""
        weights = {
            name: tensor
            for file in sorted(checkpoint.glob("*.safetensors"))
            for name, tensor in load_file(file).items()
        }
        described = [
            (name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape))
            for name, tensor in weights.items()
        ]
        sent = ((name, tensor.to(self._device)) for name, tensor in weights.items())
        self._server.update_named_params(described, sent)
        self._server.reset_prefix_cache()

    def differing_layers(self, checkpoint: Path) -> list[str]:
        """Return nothing: a server's layers cannot be seen; its log-probabilities are compared."""
        return []

    def prompt_logprobs(self, ids: Sequence[list[int]]) -> list[list[float]]:
        """Return the log-probability of each token after the first, in nats."""
        scored = self._server.get_sequence_logprobs(list(ids), [1] * len(ids), top_logprobs=1)
        return [[position[0] for position in row] for row in scored["actual_logprobs"]]

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts as prompts."""
        return prompt_ids(self._tokenizer, texts)

    def stream(
        self, prompts: Sequence[str], sampling: SamplingConfig, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Complete each prompt once, with its own seed; yield (index, completion) as they end."""
        pool = ServerRolloutPool(self._server, self._tokenizer, sampling, self._context)
        for index, ids in enumerate(self.token_ids(prompts)):
            pool.add(index, ids, seeds[index])
        for index, rollout in pool.ended():
            yield index, Completion(rollout.text, len(rollout.ids), not rollout.finished)


class ServerRolloutPool:
    """Rollouts that a server samples together, each a request of its own with its own seed.

    A prompt that fills the context has no room for a completion: it gets an empty one that was cut,
    where the server would refuse it.

    Args:
        context: longest prompt plus completion, in tokens.
        min_tokens: of a rollout, before the end of text may be sampled.
    """

    def __init__(
        self,
        server: CompletionServer,
        tokenizer: PreTrainedTokenizerBase,
        sampling: SamplingConfig,
        context: int,
        min_tokens: int = 0,
    ) -> None:
        self._server, self._tokenizer = server, tokenizer
        self._sampling, self._context, self._min_tokens = sampling, context, min_tokens
        self._sender = ThreadPoolExecutor(_REQUESTS_AT_ONCE, "rollout")
        self._running: dict[Future[Rollout], int] = {}

    def add(self, key: int, prompt_ids: list[int], seed: int) -> None:
        """Begin a rollout under a key of the caller's."""
        self._running[self._sender.submit(self._complete, prompt_ids, seed)] = key

    def ended(self) -> Iterator[tuple[int, Rollout]]:
        """Yield (key, rollout) as they end, until none is running."""
        try:
            while self._running:
                done, _ = wait(self._running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield self._running.pop(future), future.result()
        finally:
            for future in self._running:  # none, unless one has failed
                future.cancel()

    def _complete(self, prompt_ids: list[int], seed: int) -> Rollout:
        sampling = self._sampling
        room = min(sampling.max_completion_tokens, self._context - len(prompt_ids))
        if room <= 0:
            return Rollout([], [], "", finished=False)
        more: dict[str, Any] = {"seed": seed, "min_tokens": min(self._min_tokens, room)}
        # Under a chat template another token than the server's own end of text.
        more["stop_token_ids"] = [self._tokenizer.eos_token_id]
        if sampling.stop:
            more |= {"stop": [sampling.stop], "include_stop_str_in_output": True}
        answer = self._server.generate(
            [prompt_ids],
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=room,
            logprobs=0,
            generation_kwargs=more,
        )
        ids = list(answer["completion_ids"][0])
        logprobs = [position[0] for position in answer["logprobs"][0]]
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        # The server keeps the whole last token, which may reach beyond the stop text ("></").
        place = text.find(sampling.stop) if sampling.stop else -1
        stopped = place >= 0
        text = text[: place + len(sampling.stop)] if stopped else text
        ended = bool(ids) and ids[-1] == self._tokenizer.eos_token_id
        return Rollout(ids, logprobs, text, stopped or ended)

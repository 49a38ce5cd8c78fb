"""Log-probabilities and losses over target tokens only.

Shapes: B sequences, T tokens, V vocabulary, N target tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from src.batching import MicroBatch


def target_logits(model: PreTrainedModel, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 logits (N, V) and ids (N,) of the target tokens.

    The output layer runs on the positions that predict a target alone: with a large vocabulary,
    logits of prompt and padding are most of a step's memory.
    """
    hidden = model.get_decoder()(
        input_ids=batch.ids, attention_mask=batch.attention, use_cache=False
    ).last_hidden_state  # (B, T, H)
    predicts = batch.targets[:, 1:]  # position t predicts token t + 1
    logits = model.get_output_embeddings()(hidden[:, :-1][predicts])  # (N, V)
    return logits.float(), batch.ids[:, 1:][predicts]


def summed_nll(model: PreTrainedModel, batch: MicroBatch) -> torch.Tensor:
    """Return the summed negative log-likelihood of the target tokens, in nats.

    The caller divides by the whole step's target count, so that the gradient does not depend on
    how the step was cut into micro-batches.
    """
    logits, ids = target_logits(model, batch)
    return F.cross_entropy(logits, ids, reduction="sum")


def token_logprobs(model: PreTrainedModel, ids: list[int]) -> list[float]:
    """Return the log-probability of each token of one text after the first, in nats."""
    tokens = torch.tensor([ids], device=model.device)  # (1, T)
    logits = model(input_ids=tokens, use_cache=False).logits.float()  # (1, T, V)
    chosen = logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])  # (T - 1, 1)
    return chosen[:, 0].tolist()

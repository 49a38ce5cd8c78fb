"""The chunked loss against whole logits: value, gradients, bias, soft caps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from src.training import losses


def whole(hidden, weight, bias, targets, softcap):
    logits = hidden @ weight.T + (0 if bias is None else bias)
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    return F.cross_entropy(logits, targets, reduction="sum")


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("at_once", [2**26, 5 * 301, 1])
def test_loss_and_gradients_equal_those_of_whole_logits(softcap, has_bias, at_once, monkeypatch):
    monkeypatch.setattr(losses, "_LOGITS_AT_ONCE", at_once)
    torch.manual_seed(0)
    hidden, weight = torch.randn(37, 24), torch.randn(301, 24)
    bias = torch.randn(301) if has_bias else None
    targets = torch.randint(301, (37,))
    results = []
    for compute in (whole, losses._ChunkedNll.apply):
        leaves = [None if t is None else t.clone().requires_grad_() for t in (hidden, weight, bias)]
        loss = compute(*leaves, targets, softcap)
        (loss / 7).backward()
        results.append([loss.detach(), *(leaf.grad for leaf in leaves if leaf is not None)])
    for expected, found in zip(*results, strict=True):
        scale = max(1.0, expected.abs().max().item())
        assert (expected - found).abs().max() < 1e-5 * scale


def test_frozen_parts_get_no_gradient_and_no_work():
    hidden, weight = torch.randn(5, 8), torch.randn(11, 8, requires_grad=True)
    losses._ChunkedNll.apply(hidden, weight, None, torch.arange(5), None).backward()
    assert weight.grad is not None
    with torch.no_grad():
        value = losses._ChunkedNll.apply(hidden, weight, None, torch.arange(5), None)
    assert not value.requires_grad


def test_under_autocast_the_weights_gradient_is_summed_in_float32(monkeypatch):
    """Many small chunks must not round away what each adds."""
    monkeypatch.setattr(losses, "_LOGITS_AT_ONCE", 64)
    torch.manual_seed(0)
    hidden, targets = torch.randn(512, 16), torch.randint(64, (512,))
    gaps = []
    for lowered in (False, True):
        weight = torch.nn.Parameter(torch.randn(64, 16, generator=torch.Generator().manual_seed(1)))
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            losses._ChunkedNll.apply(hidden, weight, None, targets, None).backward()
        gaps.append(weight.grad)
    error = (gaps[0] - gaps[1]).norm() / gaps[0].norm()
    assert error < 0.01

"""Weights in shared memory: what is written is read as a checkpoint, and what was not is told."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from src.engine.shared_weights import SharedWeights, altered_tensors, checksum


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float32])
def memory(tmp_path, request):
    shared = SharedWeights(tmp_path, request.param)
    yield shared, request.param
    shared.close()
    assert not list(tmp_path.iterdir())


CPU = torch.device("cpu")


def policy(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed.weight": (7, 4), "norm.weight": (5,), "odd.bias": (3,), "up.weight": (6, 4)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_each_write_is_read_as_a_checkpoint_rounded_to_the_engines_type(memory):
    shared, dtype = memory
    for seed in (0, 1):
        sums = shared.write(policy(seed))
        read = load_file(shared.folder / "model.safetensors")
        assert read.keys() == policy(seed).keys()
        for name, tensor in policy(seed).items():
            assert torch.equal(read[name], tensor.to(dtype))
        assert altered_tensors(shared.folder, sums, CPU) == []


def test_a_tensor_that_did_not_arrive_is_named(memory):
    shared, _ = memory
    sums = shared.write(policy())
    changed = policy()
    changed["up.weight"][2, 3] *= 1.02  # a unit or two in bfloat16's last place
    other = shared.write(changed)
    assert altered_tensors(shared.folder, sums, CPU) == ["up.weight"]
    assert altered_tensors(shared.folder, other | {"not there": 1}, CPU) == ["not there"]


def test_a_checksum_sees_rows_that_changed_places():
    tensor = policy()["embed.weight"].bfloat16()
    assert checksum(tensor) != checksum(tensor.flip(0))
    assert checksum(tensor.T.contiguous().T) == checksum(tensor)
    assert checksum(torch.tensor(2.0)) == checksum(torch.tensor([2.0]))

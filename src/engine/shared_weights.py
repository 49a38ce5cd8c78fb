"""A policy's weights in memory that two processes of one machine share, laid out as safetensors.

The memory has no name: the kernel frees it when its processes are gone, however they end. A link
`model.safetensors` in a folder leads to it, so an engine loads it as it loads a checkpoint.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
_FILE = "model.safetensors"
# Rows whose bits are added up at once.
_ROWS = 4096


class SharedWeights:
    """The writing side, which owns the memory.

    Args:
        folder: gets the link; there already.
        dtype: the engine's, to which weights are rounded.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.folder = folder
        self._dtype = dtype
        self._tensors: dict[str, torch.Tensor] = {}
        self._memory = os.memfd_create("rollout-weights")
        (folder / _FILE).symlink_to(f"/proc/{os.getpid()}/fd/{self._memory}")

    def write(self, named: Mapping[str, torch.Tensor]) -> dict[str, int]:
        """Copy tensors over; return name -> checksum of what was given, rounded.

        Nobody may be reading: the memory holds one copy.
        """
        if not self._tensors:
            self._tensors = self._laid_out({name: named[name].shape for name in named})
        sums = []
        for name, place in self._tensors.items():
            rounded = named[name].detach().to(self._dtype)
            place.copy_(rounded)
            sums.append(checksum(rounded))
        # Read in one transfer: each read of a tensor waits for the GPU.
        return dict(zip(self._tensors, torch.stack(sums).tolist(), strict=True))

    def close(self) -> None:
        """Let the memory go; what has been mapped stays until it is forgotten."""
        (self.folder / _FILE).unlink(missing_ok=True)
        os.close(self._memory)

    def _laid_out(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
        """Write the head of the file and return the tensors' places in memory."""
        entries, ends = {}, [0]
        for name, shape in shapes.items():
            ends.append(ends[-1] + math.prod(shape) * self._dtype.itemsize)
            entries[name] = {
                "dtype": _NAMES[self._dtype],
                "shape": list(shape),
                "data_offsets": ends[-2:],
            }
        head = json.dumps(entries).encode()
        head += b" " * (-len(head) % 8)
        os.ftruncate(self._memory, 8 + len(head) + ends[-1])
        os.pwrite(self._memory, len(head).to_bytes(8, "little") + head, 0)
        file, size = f"/proc/self/fd/{self._memory}", 8 + len(head) + ends[-1]
        data = torch.from_file(file, shared=True, size=size, dtype=torch.uint8)[8 + len(head) :]
        return {
            name: data[start:end].view(self._dtype).view(*shape)
            for (name, shape), start, end in zip(shapes.items(), ends, ends[1:], strict=False)
        }


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Return a number of a tensor's bits and their rows' order, the same on every device.

    Sums of integers wrap around and so depend on no order of adding.
    """
    bits = torch.atleast_1d(tensor).contiguous().view({2: torch.int16, 4: torch.int32}[
        tensor.element_size()
    ])  # fmt: skip
    # Some rows at a time: a sum makes a copy in 64 bits first.
    rows = (
        torch.cat([part.sum(-1, dtype=torch.int64) for part in bits.flatten(1).split(_ROWS)])
        if bits.dim() > 1
        else bits.long()
    )
    return (rows * torch.arange(1, len(rows) + 1, device=rows.device)).sum()


def altered_tensors(folder: Path, checksums: Mapping[str, int], device: torch.device) -> list[str]:
    """List the tensors in a folder's memory that are not those the checksums were made of.

    Args:
        device: to add up on; a GPU reads memory many times as fast as one thread does.
    """
    with safe_open(folder / _FILE, framework="pt") as tensors:
        names = tensors.keys()
        return sorted(
            checksums.keys() ^ set(names)
            | {
                name
                for name in checksums.keys() & set(names)
                if checksum(tensors.get_tensor(name).to(device)).item() != checksums[name]
            }
        )

"""Train a small model in however many processes torchrun started; write losses and weights.

    torchrun --nproc_per_node 2 tests/unit/training/parallel_training.py replicated OUT
    torchrun --nproc_per_node 2 tests/unit/training/parallel_training.py sharded OUT

accelerate shards on GPUs alone, so `sharded` puts torch's FSDP2, which also runs on a CPU, in its
place. The run is cut after the first checkpoint and resumed.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.distributed import get_world_size, init_process_group, is_initialized
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoTokenizer

import src.training.parallel
from tests.conftest import TINY_BASE
from tests.unit.training.test_training import Recorder, make_examples, settings, trained


class ShardingAccelerator:
    """What accelerate's FSDP2 does with a model and its optimizer."""

    def __init__(self, **_):
        if not is_initialized():
            init_process_group("gloo")

    def prepare(self, model, optimizer):
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
        mesh = init_device_mesh("cpu", (get_world_size(),))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        sharded = dict(model.named_parameters())
        for group, members in zip(optimizer.param_groups, groups, strict=True):
            group["params"] = [sharded[name] for name in members]
        return model, SimpleNamespace(optimizer=optimizer)

    @contextmanager
    def no_sync(self, model):
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)


def main(kind: str, folder: Path) -> None:
    torch.set_num_threads(1)
    if kind == "sharded":
        src.training.parallel.Accelerator = ShardingAccelerator
    tokenizer = AutoTokenizer.from_pretrained(TINY_BASE)
    examples, sink = make_examples(tokenizer), Recorder()
    config = settings(micro_batch_size=2, memory_rehearsal="on")
    trained(tokenizer, examples, folder, config, stop_after=1, sink=sink)
    model = trained(tokenizer, examples, folder, config, resume=True, sink=sink)
    if src.training.parallel.process_rank() == 0:
        losses = [row["train/loss"] for row in sink.rows if "train/loss" in row]
        held = type(next(model.parameters())).__name__
        (folder / "seen.json").write_text(json.dumps({"losses": losses, "held": held}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

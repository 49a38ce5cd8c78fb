"""The processes that train one policy together, through accelerate; alone is the simple case.

`accelerate launch --num_processes N` gives data parallelism (DDP), with `--config_file
config/accelerate/fsdp2.yaml` sharded weights (FSDP2). Training states are gathered whole on the
main process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    gather_object,
)
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from src.config.training import ComputeType
from src.run.processes import launched_sharding, process_count, process_rank
from src.training.adapters import adapter_state, has_adapter, load_adapter_state

# What gloo, NCCL and torch's stores say when another process is waited for too long, or is gone.
_TALK = re.compile("gloo|nccl|TCPStore|c10d", re.IGNORECASE)
_SILENT = re.compile(
    r"[Tt]imed out waiting \d+ms|[Tt]imed out after \d+ms|wait timeout after \d+ms|"
    r"collective operation timeout"
)
_GONE = re.compile(r"Connection (?:closed|reset) by peer|Broken pipe|Connection was likely closed")


def end_of_waiting(error: BaseException, timeout_s: float, setting: str) -> str | None:
    """Say in a sentence that another launched process hangs or is gone; None for other errors.

    Args:
        setting: that `timeout_s` is the value of.
    """
    if process_count() == 1 or not _TALK.search(str(error)):
        return None
    me = f"process {process_rank()} of {process_count()}"
    if _SILENT.search(str(error)):
        return (
            f"{me}: no answer for {timeout_s:g} s from the other processes ({setting}): one of "
            "them hangs, or does more than that allows; all stop, and --resume goes on from the "
            "last saved step"
        )
    if _GONE.search(str(error)):
        return f"{me}: another process of this run has ended; its own message says why"
    return None


def autocast_to(compute_dtype: ComputeType, device: torch.device) -> torch.autocast:
    """Return autocast for a forward pass; in float32 it does nothing.

    It keeps its half-precision copies of the weights for the pass, unless they are gathered from
    shards: there the copies would be the whole model.
    """
    kind = getattr(torch, compute_dtype)
    return torch.autocast(
        device.type,
        kind,
        enabled=kind != torch.float32,
        cache_enabled=launched_sharding() != "fsdp",
    )


def join_processes_on_cpu(timeout_s: float) -> None:
    """Meet the other launched processes, if any, with a longest wait.

    Transformers, which would otherwise be the first to do so, sets none on a CPU.
    """
    if process_count() > 1:
        PartialState(cpu=True, timeout=timedelta(seconds=timeout_s))


@contextmanager
def main_process_first(timeout_s: float) -> Iterator[None]:
    """Run the block in the main process, then in the others, which wait at most `timeout_s`."""
    if process_count() == 1:
        yield
        return
    with PartialState(timeout=timedelta(seconds=timeout_s)).main_process_first():
        yield


def gathered(items: list[Any]) -> list[Any]:
    """Return the items of all processes, in the order of their ranks, in every process."""
    return items if process_count() == 1 else gather_object(items)


class ParallelPolicy:
    """A policy with its optimizer, replicated or sharded over the launched processes.

    Args:
        device: that the process trains on. A policy that will be sharded is still on the CPU.
        timeout_s: longest that a process waits for the others.
        scaled: the loss is scaled, as float16 wants it: small gradients do not become 0, and a step
            whose gradients overflow is left out.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        timeout_s: float,
        *,
        scaled: bool = False,
    ) -> None:
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.policy = policy
        self.device = device
        self.processes, self.rank = process_count(), process_rank()
        self.model: torch.nn.Module = policy
        self.optimizer = optimizer
        if self.processes > 1:
            # Mixed precision is the trainer's own autocast, so that one process and many agree.
            self._accelerator = Accelerator(
                cpu=device.type == "cpu",
                mixed_precision="no",
                kwargs_handlers=[
                    InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_s)),
                    # Gradients live in DDP's buckets rather than beside them.
                    DistributedDataParallelKwargs(gradient_as_bucket_view=True),
                ],
            )
            self.model, prepared = self._accelerator.prepare(policy, optimizer)
            self.optimizer = prepared.optimizer

    def synchronise(self, last: bool) -> AbstractContextManager[Any]:
        """Return a context for a backward pass: gradients are exchanged in the last one only.

        Where they are sharded each pass exchanges them, since whole ones would have to be kept.
        """
        if self.processes == 1 or last or isinstance(self.model, FSDPModule):
            return torch.enable_grad()
        return self._accelerator.no_sync(self.model)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss that the processes' own sum up to."""
        # They are averaged over processes; the sum is wanted.
        self.scaler.scale(loss * self.processes).backward()

    def update(self) -> None:
        """Step the optimizer, but for gradients that overflowed in float16, and drop them."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def clip_gradients(self, largest: float) -> float:
        """Scale gradients down to the global L2 norm `largest`; return the norm before."""
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), largest)
        return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()

    def summed(self, value: float) -> float:
        """Add a number up over the processes."""
        if self.processes == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.item()

    def agree(self, choice: bool) -> bool:
        """Return the main process's choice everywhere."""
        return self.summed(float(choice) if self.rank == 0 else 0.0) > 0

    def state(self, *, optimizer: bool) -> dict[str, Any]:
        """Copy weights, and the optimizer if asked, to host memory; of an adapter its own alone.

        Whole on the main process, empty on the others, all of which must call this.
        """
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state: dict[str, Any] = {
            "policy": adapter_state(self.policy)
            if has_adapter(self.policy)
            else get_model_state_dict(self.model, options=options)
        }
        if optimizer:
            state["optimizer"] = get_optimizer_state_dict(
                self.model, self.optimizer, options=options
            )
            if self.device.type != "cpu" and state["optimizer"]:  # empty but on the main process
                # Among them a count of steps that lies on the CPU.
                state["optimizer"]["param_groups"] = _copied(state["optimizer"]["param_groups"])
        # Tensors on the CPU are the live ones, which the next step would change under the writer.
        return _copied(state) if self.device.type == "cpu" else state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take weights and optimizer back from `state`."""
        options = StateDictOptions(full_state_dict=True)
        if has_adapter(self.policy):
            load_adapter_state(self.policy, state["policy"])
        else:
            set_model_state_dict(self.model, state["policy"], options=options)
        set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"], options=options)


def _copied(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(item) for item in state] if isinstance(state, list) else state

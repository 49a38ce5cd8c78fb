"""The README's default command on a machine with two GPUs, as far as a CPU can go."""

from __future__ import annotations

import os

import torch

from src.run import processes
from src.run.network import free_port
from src.run.processes import prepare_main_process
from tests.unit.grpo.test_losses import build


def test_the_trainer_is_built_where_two_gpus_are_visible(tokenizer, tmp_path, monkeypatch):
    """Seeing both, transformers would wrap the policy in nn.DataParallel, which TRL refuses."""
    monkeypatch.setattr(processes, "present_gpus", lambda: 2)
    monkeypatch.setattr(processes, "_VISIBLE_AT_START", None)
    monkeypatch.setattr(
        torch.cuda,
        "device_count",
        lambda: len(os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")),
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    settings = {"devices.train": "cuda:0", "devices.eval": "auto"}
    for name in processes._common_variables():
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    prepare_main_process(build_settings(settings))
    trainer = build(tokenizer, tmp_path, "dapo", **settings)
    assert trainer.args.n_gpu == 1


def build_settings(settings):
    from src.config.loading import with_values
    from src.config.schema import Config

    return with_values(Config(), settings)

"""Adapters: what is trained, what is merged and published, what a resumed run goes on from."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from src.config.loading import ConfigError, load_config
from src.config.training import TrainConfig
from src.engine.weight_probe import measure_probe, probe_of_files, read_probe
from src.run.metrics import MetricLog
from src.training.adapters import (
    MergedTensors,
    adapted,
    adapter_state,
    check_adapter,
    computing_merged,
    plain_policy,
    remove_adapter,
)
from src.training.batching import pack
from src.training.checkpoints import CheckpointStore, verify_checkpoint
from src.training.losses import add_chunked_loss, summed_nll
from src.training.optimization import Schedule, build_optimizer
from src.training.parallel import autocast_to
from src.training.policy import load_policy, save_policy
from src.training.throughput import training_flops
from src.training_worker import SftTrainer
from tests.conftest import TINY_BASE, two_layer_model
from tests.unit.training.test_training import CPU, Recorder, make_examples

IDS = torch.arange(3, 40)[None]


@pytest.fixture(scope="module")
def examples(tokenizer):
    return make_examples(tokenizer)


def settings(**values):
    given = {"adapter": "lora", "adapter_rank": 4, "adapter_alpha": 8, "batch_size": 8}
    quick = {"learning_rate": 1e-2, "gradient_checkpointing": False, "compute_dtype": "float32"}
    return TrainConfig(**(given | quick | values))


def policy_of(kind, tokenizer, *, tied=True):
    """A packed model with a chunked loss; of 4 bits, as QLoRA has it on a GPU."""
    if kind == "lora":
        model = two_layer_model(tokenizer, tied=tied)
        model.set_attn_implementation("packed")
    else:
        config = load_config(["config/tiny/sft_config.yaml"], ["train.compute_dtype=float32"])
        model = load_policy(str(TINY_BASE), config, "packed", settings(adapter="qlora"))
    add_chunked_loss(model)
    return model


def moved(policy):
    """Give an adapter some update, as training would."""
    torch.manual_seed(3)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.1
    return policy


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]], ids=str)
@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_a_merged_model_computes_what_the_adapted_one_does(kind, targets, tokenizer, tmp_path):
    # In training mode: in the other, bitsandbytes multiplies in bfloat16 where the processor can.
    given = settings(adapter=kind, adapter_targets=targets)
    policy = moved(adapted(policy_of(kind, tokenizer), given, 1)).train()
    plain = two_layer_model(tokenizer, tied=True) if kind == "lora" else None
    plain = plain or AutoModelForCausalLM.from_pretrained(TINY_BASE, dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in policy.named_parameters()}
    merged = dict(MergedTensors(policy).named())
    assert merged.keys() == {name for name, _ in plain.named_parameters()}
    base = logits(plain.eval())
    plain.load_state_dict(merged, strict=False)
    assert (logits(policy) - logits(plain)).abs().max() < 1e-5 * base.abs().max()
    assert (logits(policy) - base).abs().max() > 0.1
    for name, tensor in policy.named_parameters():
        assert torch.equal(tensor, before[name])


def test_a_fresh_adapter_changes_nothing_and_off_it_is_the_base(tokenizer):
    model = policy_of("lora", tokenizer).eval()
    base = logits(model)
    policy = adapted(model, settings(), 1).eval()
    assert torch.equal(logits(policy), base)
    assert not torch.equal(logits(moved(policy)), base)
    with policy.disable_adapter():
        assert torch.equal(logits(policy), base)
    remove_adapter(model)
    assert torch.equal(logits(model), base)
    again = adapted(model, settings(adapter_rank=2), 1)
    assert {tensor.shape[0] for name, tensor in adapter_state(again).items() if "_A" in name} == {2}


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_the_optimizer_sees_the_adapter_alone(kind, tokenizer, examples):
    config = settings(adapter=kind)
    policy = adapted(policy_of(kind, tokenizer), config, 1)
    optimizer = build_optimizer(policy, config)
    seen = {id(each) for group in optimizer.param_groups for each in group["params"]}
    names = {name for name, tensor in policy.named_parameters() if id(tensor) in seen}
    assert names == adapter_state(policy).keys()
    assert all("lora_" in name for name in names)
    assert all(tensor.dtype == torch.float32 for tensor in adapter_state(policy).values())
    # seven matrices a layer: A is rank x inputs, B outputs x rank
    layers, (hidden, inner, heads) = plain_policy(policy).config.num_hidden_layers, SIZES[kind]
    each = 2 * hidden + 2 * (hidden + heads) + 2 * hidden + 3 * (hidden + inner)
    assert sum(tensor.numel() for tensor in adapter_state(policy).values()) == layers * 4 * each
    summed_nll(policy, "packed", pack(examples[:2], CPU)).backward()
    with_gradient = {name for name, tensor in policy.named_parameters() if tensor.grad is not None}
    assert with_gradient == names


SIZES = {"lora": (64, 128, 32), "qlora": (192, 512, 64)}


def test_gradients_through_packing_chunks_and_checkpoints_are_those_of_the_plain_model(
    tokenizer, examples
):
    """B's gradient is the weight's times A, A's is B's times the weight's (chain rule)."""
    policy = moved(adapted(policy_of("lora", tokenizer), settings(), 1))
    plain_policy(policy).gradient_checkpointing_enable({"use_reentrant": False})
    policy.train()
    summed_nll(policy, "packed", pack(examples[:3], CPU)).backward()
    plain = policy_of("lora", tokenizer)
    plain.load_state_dict(dict(MergedTensors(policy).named()), strict=False)
    summed_nll(plain, "packed", pack(examples[:3], CPU)).backward()
    for name in ("layers.0.self_attn.q_proj", "layers.1.mlp.down_proj"):
        layer = plain_policy(policy).model.get_submodule(name)
        whole = plain.model.get_submodule(name).weight.grad
        a, b, scale = layer.lora_A["default"].weight, layer.lora_B["default"].weight, 2.0
        torch.testing.assert_close(b.grad, scale * whole @ a.T, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(a.grad, scale * b.T @ whole, rtol=1e-3, atol=1e-3)


def test_frozen_weights_count_four_flops_a_token(tokenizer):
    model = two_layer_model(tokenizer, tied=True)
    attention = 6 * 2 * 64 * 10**2
    whole = training_flops(model, [10], 10) - attention
    policy = adapted(model, settings(), 1)
    own = sum(tensor.numel() for tensor in adapter_state(policy).values())
    flops = training_flops(policy, [10], 10) - attention
    assert flops == pytest.approx(whole * 4 / 6 + 60 * own)


def test_the_probe_is_that_of_the_published_model(tokenizer, tmp_path):
    policy = moved(adapted(policy_of("lora", tokenizer), settings(), 1))
    with computing_merged(policy):
        probe = measure_probe(policy, tokenizer, CPU)
    save_policy(policy, tokenizer, tmp_path, dict(MergedTensors(policy).named()))
    assert probe.gap(probe_of_files(tmp_path, tokenizer, trusted=False).logprobs) < 1e-6
    assert "lora_" in " ".join(dict(policy.named_parameters()))  # put back


def train(tokenizer, examples, folder, config, *, kind="lora", stop_after=None, resume=False):
    model = policy_of(kind, tokenizer)
    store, sink = CheckpointStore(folder, keep=1), Recorder()
    trainer = SftTrainer(model, tokenizer, config, store, MetricLog([sink]), seed=5)
    schedule = Schedule(3, frozenset({1, 3}), 24)
    for checkpoint in trainer.train(examples, schedule, resume=resume):
        if checkpoint is not None and checkpoint.step == stop_after:
            break
    return trainer, [row["train/loss"] for row in sink.rows if "train/loss" in row]


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]], ids=str)
@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_a_checkpoint_is_a_plain_model_with_the_adapter_beside_it(
    kind, targets, tokenizer, examples, tmp_path
):
    config = settings(adapter=kind, adapter_targets=targets)
    trainer, losses = train(tokenizer, examples, tmp_path, config, kind=kind)
    assert losses[2] < losses[0]
    folder = tmp_path / "step_000003"
    verify_checkpoint(folder)
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} < json.loads(
        (folder / "checkpoint.json").read_text()
    )["sha256"].keys()
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert not {"quantization_config", "peft_config", "auto_mapping"} & config.keys()
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    policy = trainer._parallel.policy
    for name, tensor in MergedTensors(policy).named():
        assert torch.equal(saved.get_parameter(name), tensor.bfloat16().float()), name
    if kind == "lora":
        base = two_layer_model(tokenizer, tied=True)
        users = PeftModel.from_pretrained(base, folder / "adapter").eval()
        assert torch.equal(logits(users), logits(policy.eval()))
    probe = read_probe(folder)
    assert probe.gap(probe_of_files(folder, tokenizer, trusted=False).logprobs) < 1e-5


def test_layers_in_4_bits_answer_in_half_precision_under_autocast():
    """What they answer is kept for the backward pass, and planned in two bytes."""
    config = load_config(["config/tiny/sft_config.yaml"], ["train.compute_dtype=bfloat16"])
    model = load_policy(str(TINY_BASE), config, "packed", settings(adapter="qlora"))
    policy, answers = adapted(model, settings(adapter="qlora"), 3), []
    for name, layer in policy.named_modules():
        if name.endswith("_proj"):
            layer.register_forward_hook(lambda _, __, answer: answers.append(answer.dtype))
    with autocast_to("bfloat16", torch.device("cpu")):
        policy(input_ids=IDS, use_cache=False)
    assert len(answers) == 7 * model.config.num_hidden_layers
    assert set(answers) == {torch.bfloat16}


@pytest.mark.parametrize("changes", [{}, {"adapter": "qlora"}, {"adapter_dropout": 0.2},
                                     {"optimizer": "adamw_8bit"}], ids=str)  # fmt: skip
def test_a_resumed_run_goes_on_to_the_bit(changes, tokenizer, examples, tmp_path):
    config = settings(**changes)
    kind = config.adapter
    whole, losses = train(tokenizer, examples, tmp_path / "whole", config, kind=kind)
    train(tokenizer, examples, tmp_path / "cut", config, kind=kind, stop_after=1)
    assert (tmp_path / "cut" / "step_000001" / "training_state.pt").stat().st_size < 2e6
    resumed, rest = train(tokenizer, examples, tmp_path / "cut", config, kind=kind, resume=True)
    assert rest == losses[1:]
    ours, theirs = (adapter_state(each._parallel.policy) for each in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("tied", [True, False])
def test_merged_weights_come_layer_by_layer_under_the_names_of_a_checkpoint(tokenizer, tied):
    """An engine buffers what it gets of a layer until all has come, biases too."""
    policy = adapted(two_layer_model(tokenizer, tied=tied), settings(), 3)
    plain = two_layer_model(tokenizer, tied=tied)
    merged = dict(MergedTensors(policy).named())
    assert list(merged) == [name for name, _ in plain.named_parameters()]
    for name, tensor in plain.named_parameters():
        assert list(MergedTensors(policy).shape(name)) == list(tensor.shape)
        assert torch.equal(merged[name], tensor.detach())


def test_dropout_draws_anew_in_each_step(tokenizer, examples, tmp_path):
    _, dropped = train(tokenizer, examples, tmp_path / "a", settings(adapter_dropout=0.5))
    _, whole = train(tokenizer, examples, tmp_path / "b", settings())
    assert dropped[0] == whole[0]  # B is zero yet
    assert dropped[1] != whole[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["train.adapter=lora", "train.adapter_rank=0"], "train.adapter_rank"),
        (["train.adapter_rank=8"], "train.adapter_rank: 8 is of no use without an adapter"),
        (["train.adapter_dropout=0.1"], "adapter_dropout: 0.1 is of no use without an adapter"),
        (["grpo.adapter_targets=[q_proj]"], "grpo.adapter_targets"),
        (["grpo.adapter=lora", "grpo.adapter_targets=[]"], "no layer is named"),
        (["grpo.adapter=lora", "grpo.adapter_dropout=0.1"], "unknown key"),
        (["grpo.adapter=qlora"], "devices.train is cpu; use lora"),
        (["train.adapter=qlora", "devices.train=cpu:0-1"], "devices.train is cpu:0-1; use lora"),
        (["train.adapter=lora", "train.optimizer=adamw_bf16_kahan", "model.weight_dtype=bfloat16"],
         "train.adapter = lora is float32; use adamw"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        load_config(["config/tiny/grpo_config.yaml"], changes)


@pytest.mark.parametrize("wrong", ["lm_head", "c_attn", "embed_tokens"])
def test_layers_that_are_not_there_are_refused(wrong):
    def check(targets):
        changes = ["grpo.adapter=lora", f"grpo.adapter_targets={targets}"]
        config = load_config(["config/tiny/grpo_config.yaml"], changes)
        check_adapter(str(TINY_BASE), config, "grpo")
        return config.grpo

    with pytest.raises(ConfigError, match=f"adapter_targets: {wrong}: no layer .*, v_proj"):
        check(f"[q_proj, {wrong}]")
    few = check("[q_proj, v_proj]")
    policy = adapted(load_policy(str(TINY_BASE), load_config(["config/tiny/base.yaml"])), few, 1)
    assert len(adapter_state(policy)) == 4 * 2 * 2

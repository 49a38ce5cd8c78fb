"""The estimate of memory against tensors alive in real passes, and what is derived from it."""

from __future__ import annotations

import doctest
import logging
import weakref
from contextlib import contextmanager

import pytest
import torch
import trl.kernels.chunked_logprob as trl_head
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AttentionInterface, Qwen2Config, Qwen2ForCausalLM

import src.training.losses as losses
from src.config.loading import ConfigError, load_config
from src.run.directory import Run
from src.stages import cards, plan
from src.stages.cards import (
    EngineNeed,
    engine_fraction,
    engine_need,
    engine_sleeps,
    planned_fraction,
    usable_gib,
)
from src.stages.memory import (
    GIB,
    Pass,
    _by_item,
    grpo_memory_gib,
    host_memory_gib,
    training_memory_gib,
)
from src.stages.model_shape import model_shape
from src.stages.out_of_memory import explain, find_shortage
from src.stages.start import run_stage
from src.training.adapters import adapted
from src.training.parallel import autocast_to
from src.training.throughput import _PEAK_FLOPS
from tests.conftest import NO_DATA, ROOT

SIZES = {
    "1.5B": [],
    "7B": [
        *("model.parameters=7615616512", "model.hidden_size=3584", "model.layers=28"),
        *("model.intermediate_size=18944", "model.query_width=3584", "model.key_width=512"),
        *("model.vocabulary=152064", "model.tied_embeddings=false"),
    ],
}
HELD = ("weights", "adapter", "gradients", "optimizer", "CUDA and fragmentation")
CUDA_TEXT = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 39.39 GiB of "
    "which 1.20 GiB is free."
)


def settings(*overrides: str, stage: str = "grpo"):
    return load_config([f"config/{stage}_config.yaml"], overrides)


class _Varlen(torch.autograd.Function):
    """Keeps for its backward pass what torch's variable-length kernel keeps."""

    @staticmethod
    def forward(ctx, query, key, value):
        out, sums = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx, upstream):
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _attend(_, query, key, value, *__, **___):
    on = torch.is_autocast_enabled("cpu")
    kind = torch.get_autocast_dtype("cpu") if on else query.dtype
    return _Varlen.apply(*(heads.transpose(1, 2).to(kind) for heads in (query, key, value))), None


AttentionInterface.register("varlen_stand_in", _attend)


class Alive(TorchDispatchMode):
    """Adds up the bytes of tensors that are alive."""

    def __init__(self):
        super().__init__()
        self.seen, self.now, self.peak = {}, 0, 0

    def note(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata in self.seen:
            return
        key, size = storage._cdata, storage.nbytes()
        self.now += size

        def forget(_):
            self.seen.pop(key)
            self.now -= size

        self.seen[key] = weakref.ref(storage, forget)

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self.note(tensor)
        self.peak = max(self.peak, self.now)
        return out


@contextmanager
def as_on_a_gpu(monkeypatch):
    """Put kernels that work in place on a GPU in the place of those that copy on a CPU."""
    for name in ("_forward_tile", "_backward_tile"):
        monkeypatch.setattr(trl_head, name, lambda *_, **__: None)
    monkeypatch.setattr(trl_head, "_addmm_fp32", lambda total, *_: total.add_(0))
    monkeypatch.setattr(losses, "_add_product", lambda total, *_: total.add_(0))
    # All is on one device, and a fake parameter cannot be moved.
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, *_, **__: module)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def _drop_gradient(parameter):
    parameter.grad = None


def measured_gib(config, one: Pass, shape) -> float:
    """Return what comes and goes in two micro-batches, in GiB, by the tensors that are alive."""
    torch.set_default_dtype(getattr(torch, config.model.weight_dtype))
    try:
        model = Qwen2ForCausalLM(shape).train()
    finally:
        torch.set_default_dtype(torch.float32)
    if one.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    losses.add_chunked_loss(model)
    model = adapted(model, one.adapter, 1)
    ids = torch.zeros(1, one.tokens, dtype=torch.long)
    wanted = torch.arange(one.targets), torch.zeros(one.targets, dtype=torch.long)
    for parameter in filter(lambda each: each.requires_grad, model.parameters()):
        # Fake gradients would be added up in a third place.
        parameter.register_post_accumulate_grad_hook(_drop_gradient)

    def micro_batch():
        with autocast_to(config.train.compute_dtype, torch.device("cpu")):
            if one.loss == "chunked":
                loss = model(input_ids=ids, targets=wanted).nll
            else:
                states = model.get_decoder()(input_ids=ids).last_hidden_state
                hidden, head = states[0, : one.targets].clone(), model.get_output_embeddings()
                del states
                loss = trl_head.ChunkedLogProbFunction.apply(
                    hidden, head.weight, None, wanted[1], 1.0, 32768, None, 1.0,
                    ("log_probs", "entropy"),
                )[0].sum()  # fmt: skip
                del hidden
        loss.backward()

    micro_batch()  # the first of a process holds on to more
    alive = Alive()
    with alive:
        for tensor in (*model.parameters(), *model.buffers()):
            alive.note(tensor)
        held = alive.now
        for _ in range(2):
            micro_batch()
    return (alive.peak - held) / GIB


@pytest.mark.parametrize(
    ("name", "loss", "changes", "shape"),
    [
        ("GRPO", "fused", {}, {}),
        ("GRPO, untied", "fused", {}, {"tie_word_embeddings": False}),
        ("SFT", "chunked", {}, {}),
        ("SFT, untied", "chunked", {}, {"tie_word_embeddings": False, "vocab_size": 60_000}),
        ("everything kept", "fused", {"checkpointing": False}, {}),
        ("float32", "fused", {"compute": "float32"}, {}),
        ("float32, everything kept", "chunked", {"compute": "float32", "checkpointing": False}, {}),
        ("bfloat16 weights", "fused", {"weights": "bfloat16"}, {}),
        ("bfloat16, everything kept", "chunked", {"weights": "bfloat16", "checkpointing": False},
         {}),
        ("adapter, GRPO", "fused", {"adapter": "lora"}, {}),
        ("adapter, SFT", "chunked", {"adapter": "lora"}, {}),
        ("adapter, everything kept", "fused", {"adapter": "lora", "checkpointing": False}, {}),
        ("adapter, float32", "chunked", {"adapter": "lora", "compute": "float32"}, {}),
        ("adapter over bfloat16", "fused", {"adapter": "lora", "weights": "bfloat16",
                                            "compute": "bfloat16"}, {}),
        ("adapter over bfloat16, SFT", "chunked", {"adapter": "lora", "weights": "bfloat16",
                                                   "compute": "bfloat16"}, {}),
        ("adapter over bfloat16, everything kept", "chunked",
         {"adapter": "lora", "weights": "bfloat16", "compute": "bfloat16",
          "checkpointing": False}, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_estimate_against_tensors_alive(monkeypatch, name, loss, changes, shape):
    """Two layers as wide as Qwen2.5-Math-1.5B's, 4,096 tokens; no memory is taken."""
    widths = {
        "vocab_size": 16_384, "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": 8, "num_attention_heads": 12, "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    } | shape  # fmt: skip
    qwen = Qwen2Config(**widths, attn_implementation="varlen_stand_in", use_cache=False)
    with as_on_a_gpu(monkeypatch):
        count = sum(parameter.numel() for parameter in Qwen2ForCausalLM(qwen).parameters())
        by_weights = "float32" if "weights" in changes else "bfloat16"
        config = settings(
            f"model.parameters={count}",
            "model.layers=8",
            f"model.vocabulary={widths['vocab_size']}",
            f"model.tied_embeddings={str(widths['tie_word_embeddings']).lower()}",
            f"model.weight_dtype={changes.get('weights', 'float32')}",
            f"grpo.adapter={changes.get('adapter', 'none')}",
            f"train.adapter={changes.get('adapter', 'none')}",
            f"train.compute_dtype={changes.get('compute', by_weights)}",
        )
        section = config.train if loss == "chunked" else config.grpo
        one = Pass(4096, 4096, changes.get("checkpointing", True), loss, section)
        found = measured_gib(config, one, qwen)
    planned = _by_item(config, one, 1, "ddp")
    passing = sum(size for item, size in planned.items() if item not in HELD)
    print(f"{name}: planned {passing:.3f} GiB, alive {found:.3f}, ratio {passing / found:.3f}")
    assert 0.95 < passing / found < 1.15


def test_the_state_of_each_strategy_over_four_devices():
    """1.54 B parameters in float32: 16 bytes each whole; ZeRO in 16 bits, with 12 to share out."""
    gib = 1_543_714_304 / GIB

    def held(strategy):
        items = grpo_memory_gib(settings(), 4, strategy)
        return sum(items[name] for name in ("weights", "gradients", "optimizer"))

    assert {name: held(name) for name in ("ddp", "zero2", "fsdp2", "zero3")} == pytest.approx(
        {"ddp": 16 * gib, "zero2": (2 + 14 / 4) * gib, "fsdp2": 4 * gib, "zero3": 4 * gib}
    )
    assert grpo_memory_gib(settings(), 4, "ddp")["DDP's buckets"] == pytest.approx(4 * gib)
    assert "DDP's buckets" not in grpo_memory_gib(settings(), 1, "ddp")
    assert "DDP's buckets" not in training_memory_gib(settings(stage="sft"), 4, "ddp")
    halved = grpo_memory_gib(settings("model.weight_dtype=bfloat16"), 1, "ddp")
    assert halved["optimizer"] == pytest.approx(4 * gib)
    referred = grpo_memory_gib(settings("grpo.kl_beta=0.04"), 4, "fsdp2")
    assert referred["reference model"] == pytest.approx(gib)


def test_the_items_of_a_pass_by_hand():
    """1.5B, 8 completions of 1,024 tokens and their prompt of 256, 28 layers of width 1,536."""
    tokens = 8 * 1024 + 256
    items = grpo_memory_gib(settings(), 1, "ddp")
    assert items["kept for backward"] == pytest.approx(31 * tokens * 1536 * 4 / GIB)
    layers = 28 * (1536 * (2 * 1536 + 2 * 256 + 3 * 8960 + 2) + 1536 + 512)
    assert items["autocast's copies"] == pytest.approx(2 * layers / GIB, rel=1e-4)
    assert 28 < sum(items.values()) < 30
    sft = training_memory_gib(settings(stage="sft"))
    assert sft["logits"] == pytest.approx(2 * 6 * 2**26 / GIB)
    words = 151_936 * 1536
    assert sft["output layer's gradient"] == pytest.approx((6 * words + 4 * 12_288 * 1536) / GIB)


def test_the_default_shape_is_qwens_and_a_folder_is_measured():
    assert model_shape(settings()).layer == pytest.approx(46_797_824, abs=100)
    tiny = model_shape(settings("model.path=assets/tiny_base"))
    assert (tiny.layers, tiny.vocabulary, tiny.tied_embeddings) == (4, 620, True)
    assert model_shape(settings("model.path=Qwen/some-other-model")).assumed


def test_a_model_that_the_hub_client_has_is_read_from_there(monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda *_: str(ROOT / "assets" / "tiny_base" / "config.json"),
    )
    assert model_shape(settings("model.path=someone/model")).layers == 4
    stated = settings("model.path=someone/model", "model.layers=12")
    assert model_shape(stated).layers == 12


def test_the_engine_takes_what_it_can_use_of_what_is_left():
    """By hand in CUDA_NOTES: about 29 GiB of trainer; 0.18 of 40 GB was enough."""
    config, need = settings(), engine_need(settings(), 1)
    assert need.weights == pytest.approx(2.875, abs=0.01)
    assert need.a_sequence == pytest.approx(2048 * 28 * 256 * 4 / GIB)
    shares = {gb: planned_fraction(config, usable_gib(gb), 1, "ddp") for gb in (24, 40, 80)}
    assert shares[24] is None
    assert 0.18 <= shares[40] <= 0.25
    assert shares[80] == pytest.approx((need.most + 2) / usable_gib(80), abs=0.001)
    assert need.cached(shares[80] * usable_gib(80)) == 256
    trainer = sum(grpo_memory_gib(config, 1, "ddp").values())
    assert trainer + shares[40] * usable_gib(40) <= 0.951 * usable_gib(40)


def test_an_engine_that_does_not_fit_has_no_share():
    need = EngineNeed(weights=3.0, workspace=1.0, a_sequence=0.1, sequences=64)
    assert engine_fraction(10.0, 4.0, need) is None  # 5.5 are left, 5.6 are needed
    assert engine_fraction(10.0, 3.8, need) == 0.57
    # All that it can use is 10.4 GiB, and 2 to spare.
    assert engine_fraction(100.0, 4.0, need) == pytest.approx(0.124, abs=0.0011)


def test_a_share_that_is_given_is_taken():
    config = settings("grpo.engine_memory_fraction=0.5")
    assert cards.rollout_fraction(config, usable_gib(24)) == 0.5
    awake = settings("grpo.engine_memory_fraction=0.5", "engine.sleep=off")
    assert planned_fraction(awake, usable_gib(40), 1, "ddp") is None
    assert planned_fraction(config, usable_gib(40), 1, "ddp") == 0.5  # in turn with the trainer
    assert planned_fraction(config, usable_gib(80), 1, "ddp") == 0.5
    with pytest.raises(ConfigError, match="engine_memory_fraction"):
        settings("grpo.engine_memory_fraction=half")


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch):
    with pytest.raises(ConfigError) as caught:
        cards.rollout_fraction(settings(), usable_gib(24))
    said = str(caught.value)
    assert "28.9 GiB of a GPU's 23.6" in said
    assert "grpo.optimizer=adamw_8bit" in said  # with an engine that sleeps meanwhile
    assert "launch_trl.sh 2 --strategy fsdp2" in said
    monkeypatch.setattr(cards, "card_memory_gib", lambda _: usable_gib(24))
    with pytest.raises(ConfigError, match="What fits"):
        cards.check_card(settings())
    monkeypatch.setattr(cards, "process_count", lambda: 4)
    cards.check_card(settings())  # a strategy that fits may still be chosen


def test_the_plan_of_a_card_that_is_here(monkeypatch, tmp_path):
    """nvidia-smi counts what CUDA gives out and a little more."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 81559\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(cards, "visible_gpus", lambda: ["0"])
    assert cards.card_memory_gib(settings()) == pytest.approx(78.5, abs=0.1)
    assert cards.card_memory_gib(settings("devices.train=cpu", "devices.eval=cpu")) is None


def test_host_memory():
    config = settings()
    size = 4 * 1_543_714_304 / GIB
    assert host_memory_gib(config, 8, checkpoints_copied=False) == pytest.approx(8 * size)
    assert host_memory_gib(config, 1, checkpoints_copied=True) == pytest.approx(3 * size)


def _table(column: str) -> list[list[str]]:
    """Return the rows of the table of docs/gpus.md that has a column."""
    _, _, rest = (ROOT / "docs" / "gpus.md").read_text().partition(column)
    table = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_sizing_table_is_what_the_formula_gives():
    rows = _table("trainer, GiB each")
    assert len(rows) >= 6
    for model, gpus, size, overlay, strategy, engine, micro, trainer, share in rows:
        mode, processes = engine.split()[0].rstrip(","), int(gpus.split()[0])
        files = ["config/grpo_config.yaml"]
        files += [f"config/hardware/{overlay.strip('`')}.yaml"] if overlay != "-" else []
        asked = [*SIZES[model], f"grpo.micro_batch_size={micro}", f"grpo.mode={mode}"]
        config = load_config(files, asked)
        if overlay != "-":
            assert load_config(files).grpo.micro_batch_size == int(micro)
        assert not list(config.grpo.problems(processes))
        items = grpo_memory_gib(config, processes, strategy)
        assert f"{sum(items.values()):.1f}" == trainer
        card = usable_gib(float(size.split()[0]))
        planned = planned_fraction(config, card, processes, strategy)
        assert planned is not None
        assert engine_sleeps(config, card, processes, strategy) == engine.endswith("sleeps")
        assert share == ("-" if mode == "server" else f"{planned * card:.1f} ({planned:g})")


def test_the_seconds_of_a_step_are_what_the_page_says_they_are_computed_from():
    shapes = {name: model_shape(load_config(["config/grpo_config.yaml"], asked))
              for name, asked in SIZES.items()}  # fmt: skip
    rows = _table("GRPO step, s")
    assert len(rows) >= 6
    for model, gpus, peak, bandwidth, *seconds in rows:
        shape, count, name = shapes[model], int(gpus.split()[0]), gpus.partition(" x ")[2]
        assert next(v for key, v in _PEAK_FLOPS.items() if key in name) == float(peak) * 1e12
        flops = 8 * shape.parameters / (0.4 * float(peak) * 1e12 * count)
        cached = 2 * 2 * shape.layers * shape.key_width
        read = 1024 * 2 * shape.parameters + 256 / count * (500 * 150 + 500**2 / 2) * cached
        generate, train = read / (0.5 * float(bandwidth) * 1e12), 256 * 650 * flops
        assert float(seconds[0]) == pytest.approx(64 * 400 * flops, abs=0.05)
        computed = [generate, train, generate + train]
        assert [float(cell) for cell in seconds[1:]] == pytest.approx(computed, abs=0.51)


@pytest.mark.parametrize(
    ("text", "kind", "in_engine"),
    [
        (CUDA_TEXT, "out", False),
        ("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
         "no cache", False),
        ("Free memory on device cuda:0 (10.25/39.39 GiB) on startup is less than desired GPU "
         "memory utilization (0.35, 13.79 GiB).", "not free", False),
        ("c on validation could not be scored:\nTraceback (most recent call last):\n  File x\n"
         f"torch.OutOfMemoryError: {CUDA_TEXT}", "out", True),
        ("the evaluation worker could not start on m:\nTraceback\nValueError: No available memory "
         "for the cache blocks.", "no cache", True),
        ("the evaluation worker on cuda:2 could not start on m: ValueError: Free memory on device "
         "cuda:2 (10.25/39.39 GiB) on startup is less than desired", "not free", True),
        ("the rollout engine could not start on m: ValueError: No available memory for the cache "
         "blocks.", "no cache", True),
        (f"the rollout engine failed: OutOfMemoryError: {CUDA_TEXT}", "out", True),
    ],
)  # fmt: skip
def test_errors_about_memory_are_told_by_their_words(text, kind, in_engine):
    found = find_shortage(RuntimeError(text))
    assert (found.kind, found.in_engine) == (kind, in_engine)
    assert "Traceback" not in found.quote
    wrapped = ValueError("the trainer stopped")
    wrapped.__cause__ = RuntimeError(text)
    assert find_shortage(wrapped).kind == kind
    assert find_shortage(torch.OutOfMemoryError("no more")).kind == "out"
    assert find_shortage(ValueError("something else")) is None


@pytest.mark.parametrize(
    ("stage", "config", "text", "changes"),
    [
        ("step3_GRPO", settings(), CUDA_TEXT,
         ["grpo.micro_batch_size=4", "grpo.engine_memory_fraction=", "engine.sleep=on"]),
        ("step3_GRPO", settings("engine.sleep=on"), CUDA_TEXT,
         ["grpo.micro_batch_size=4", "grpo.engine_memory_fraction=", "grpo.optimizer=adamw_8bit"]),
        ("step3_GRPO", settings("engine.sleep=on", "grpo.optimizer=adamw_8bit"), CUDA_TEXT,
         ["grpo.micro_batch_size=4", "grpo.engine_memory_fraction=", "grpo.adapter=lora"]),
        ("step3_GRPO", settings("grpo.gradient_checkpointing=false"), CUDA_TEXT,
         ["grpo.gradient_checkpointing=true", "grpo.micro_batch_size=4",
          "grpo.engine_memory_fraction="]),
        ("step3_GRPO", settings(), "Free memory on device cuda:0 (10.25/39.39 GiB) on startup is "
         "less than desired GPU memory", ["grpo.engine_memory_fraction=0.25", "micro_batch_size=4",
                                          "engine.sleep=on"]),
        ("step2_sft", settings("devices.eval=cuda:1", stage="sft"), CUDA_TEXT,
         ["train.micro_batch_size=4", "train.optimizer=adamw_8bit", "--num_processes 2"]),
        ("step2_sft", settings("devices.eval=cuda:0", "engine.sleep=off", stage="sft"), CUDA_TEXT,
         ["train.micro_batch_size=4", "engine.sleep=on", "engine.memory_fraction="]),
        ("step2_sft", settings("devices.eval=cuda:0", stage="sft"),
         f"could not be scored:\ntorch.OutOfMemoryError: {CUDA_TEXT}",
         ["engine.memory_fraction=0.70", "devices.eval", "engine.max_sequences=128"]),
        ("step0_baseline", settings(), "No available memory for the cache blocks",
         ["engine.memory_fraction=0.95", "engine.max_sequences=128", "engine.enforce_eager=true"]),
    ],
)  # fmt: skip
def test_three_changes_in_order(stage, config, text, changes):
    said = explain(stage, config, find_shortage(RuntimeError(text)), step=12)
    assert "after step 12" in said
    assert "\n" not in said
    places = [said.index(f"({number}) ") for number in (1, 2, 3)]
    assert "(4) " not in said
    for start, end, change in zip(places, [*places[1:], len(said)], changes, strict=True):
        assert change in said[start:end], said
    assert ("--resume goes on" in said) == (stage != "step0_baseline")


def test_a_search_that_ran_out_of_memory_is_started_over():
    """Its failed trials count on, so that it would end at once."""
    failed = f"4 trials failed: OutOfMemoryError: {CUDA_TEXT}"
    shortage = find_shortage(RuntimeError(failed))
    said = explain("step1_sft_hyper", settings(stage="sft_hyper"), shortage, step=None)
    assert "Then start the search over, by the same command without --resume" in said
    assert "--resume goes on" not in said


def test_a_stage_that_runs_out_of_memory_ends_with_one_paragraph(tmp_path, capsys, caplog):
    """Planted in a main of its own; the traceback is in the log file, and a smaller run goes on."""
    calls = []

    def main(config, run: Run) -> None:
        calls.append(config.train.micro_batch_size)
        run.begin(data=NO_DATA, model="assets/tiny_base")
        if len(calls) == 1:
            (run.folder / "metrics.jsonl").write_text('{"step": 7, "train/loss": 1.0}\n')
            run._claim.close()  # as the end of the process does
            raise torch.OutOfMemoryError(CUDA_TEXT)
        run.finish()

    def start(*arguments: str) -> None:
        run_stage(
            "step2_sft", main, default_config="config/tiny/sft_config.yaml", description="",
            arguments=["--set", f"run.output_root={tmp_path}", *arguments],
        )  # fmt: skip

    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 1
    (told,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert told.exc_info is None
    assert "after step 7" in told.getMessage()
    assert "train.micro_batch_size=16" in told.getMessage()
    log = (tmp_path / "tiny" / "step2_sft" / "run.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert CUDA_TEXT in log
    start("--resume", "--set", "train.micro_batch_size=16")
    assert calls == [32, 16]
    start("--resume")  # finished, whatever it took
    assert calls == [32, 16]
    with pytest.raises(SystemExit):
        start("--resume", "--set", "train.learning_rate=1e-3")


def test_docstring_examples():
    assert doctest.testmod(plan).failed == 0

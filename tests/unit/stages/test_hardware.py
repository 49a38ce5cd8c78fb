"""The overlays of config/hardware: each fits its card in every step; auto finds the right one."""

from __future__ import annotations

import pytest

import run_pipeline
from src.config.hardware import HARDWARE, choose_hardware
from src.config.loading import ConfigError, load_config
from src.pipeline import launching
from src.stages import rehearsal
from src.stages.cards import engine_need, engine_sleeps, planned_fraction, usable_gib
from src.stages.evaluation_engine import beside_training
from src.stages.memory import grpo_between_steps_gib, grpo_memory_gib
from tests.conftest import ROOT
from tests.unit.stages.test_memory import SIZES

BY_NAME = {item.name: item for item in HARDWARE}


def stage(name: str, *overlays: str, **values: str):
    files = [f"config/{name}_config.yaml", *(f"config/hardware/{item}.yaml" for item in overlays)]
    return load_config(files, [f"{path}={value}" for path, value in values.items()])


def test_every_overlay_is_known_and_every_one_known_is_there():
    files = {file.stem for file in (ROOT / "config" / "hardware").glob("*.yaml")}
    assert files == set(BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_each_overlay_fits_its_card_in_every_step(name):
    """Qwen2.5-Math-1.5B, by the plan's own count."""
    hardware, card = BY_NAME[name], usable_gib(BY_NAME[name].card_gb)
    for fitting in ("sft", "sft_hyper"):
        said = beside_training(stage(fitting, name), card, 1, "ddp")
        assert said.startswith("fits")
        assert "--set" not in said
    baseline = stage("baseline", name)
    share = baseline.engine.memory_fraction / (2 if hardware.gpus == 1 else 1)
    assert share * card >= engine_need(baseline, 1).least
    grpo = stage("grpo", name)
    assert not list(grpo.grpo.problems(hardware.gpus))
    assert planned_fraction(grpo, card, hardware.gpus, hardware.strategy) is not None


def test_without_an_overlay_24_gb_are_too_few_and_40_take_turns():
    for fitting in ("sft", "sft_hyper"):
        assert beside_training(stage(fitting), usable_gib(24), 1, "ddp") == "does not fit"
    assert planned_fraction(stage("grpo"), usable_gib(24), 1, "ddp") is None
    awake = stage("sft", **{"engine.sleep": "off"})
    assert "--set engine.memory_fraction" in beside_training(awake, usable_gib(40), 1, "ddp")
    assert "sleeps" in beside_training(stage("sft"), usable_gib(40), 1, "ddp")


def test_an_engine_sleeps_by_itself_only_where_it_has_to():
    config, eight_bit = stage("grpo"), stage("grpo", **{"grpo.optimizer": "adamw_8bit"})
    assert not engine_sleeps(config, usable_gib(40), 1, "ddp")
    assert not engine_sleeps(config, usable_gib(80), 1, "ddp")
    assert not engine_sleeps(config, usable_gib(24), 1, "ddp")  # and it would not help either
    assert engine_sleeps(eight_bit, usable_gib(24), 1, "ddp")
    server = stage("grpo", **{"grpo.mode": "server", "engine.sleep": "on"})
    assert not engine_sleeps(server, usable_gib(24), 1, "ddp")


def test_what_the_trainer_keeps_while_rollouts_are_drawn_by_hand():
    """Float32 weights, moments in 8 bits with their scales, and CUDA's own GiB; no gradients."""
    config, count = stage("grpo", "24gb"), 1_543_714_304
    kept = grpo_between_steps_gib(config, 1, "ddp")
    assert kept == pytest.approx(count * (4 + 2 + 8 / 256) / 2**30 + 1.0)
    training = sum(grpo_memory_gib(config, 1, "ddp").values())
    card = usable_gib(24)
    share = planned_fraction(config, card, 1, "ddp") * card
    assert max(training + 1.0, kept + share) < 0.951 * card
    assert training + share > card  # side by side they do not fit


@pytest.mark.parametrize(
    ("card", "gpus", "strategy", "fits"),
    [(80, 1, "ddp", False), (80, 2, "fsdp2", True), (40, 4, "fsdp2", False),
     (40, 8, "fsdp2", True), (24, 16, "fsdp2", False)],
)  # fmt: skip
def test_what_7b_in_float32_fits_with_an_engine_in_turn(card, gpus, strategy, fits):
    """No single card holds it: 16 bytes of each of 7.6 billion parameters are 113 GiB."""
    config = load_config(["config/grpo_config.yaml"], [*SIZES["7B"], "grpo.micro_batch_size=2"])
    assert (planned_fraction(config, usable_gib(card), gpus, strategy) is not None) == fits


@pytest.mark.parametrize(
    ("cards", "name"),
    [
        ([23.99], "24gb"),
        ([23.99, 23.99], "2x24gb"),
        ([79.6, 23.99], "2x24gb"),
        ([31.8], "24gb"),
        ([40.0], "40gb"),
        ([45.0, 45.0], "40gb"),
        ([79.6, 40.0], "40gb"),
        ([79.6] * 8, "80gb"),
        ([140.4], "80gb"),
    ],
)
def test_auto_takes_the_largest_that_the_smallest_card_is_enough_for(cards, name):
    hardware, why = choose_hardware("auto", cards)
    assert hardware.name == name
    assert f"found {len(cards)} GPU" in why
    assert ("smallest counts" in why) == (len(set(cards)) > 1)


def test_nothing_that_suits_is_said():
    with pytest.raises(ConfigError, match="run_pipeline.py --profile tiny"):
        choose_hardware("auto", [])
    with pytest.raises(ConfigError, match="found 2 GPUs of 24.0 and 15.9 GB, of which"):
        choose_hardware("auto", [23.99, 15.9])


def asked(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["run_pipeline.py", *options])
    return run_pipeline.parse_arguments()


def with_cards(monkeypatch, cards):
    monkeypatch.setattr(launching, "visible_gpus", lambda: [str(n) for n in range(len(cards))])
    monkeypatch.setattr(launching, "gpu_memory_gb", lambda _: cards)
    for module in (launching, rehearsal):
        monkeypatch.setattr(module, "gpu_count", lambda: len(cards))
    monkeypatch.setattr("src.run.devices.computes_on_gpus", lambda: True)
    monkeypatch.setattr(rehearsal, "computes_on_gpus", lambda: True)


def test_the_pipeline_says_what_it_chose_and_starts_step_3_by_it(monkeypatch, caplog):
    caplog.set_level("INFO")
    with_cards(monkeypatch, [23.99, 23.99])
    arguments = asked(monkeypatch, "--hardware", "auto", "--dry-run")
    hardware = launching.chosen_hardware(arguments.hardware, None)
    assert "hardware: config/hardware/2x24gb.yaml, found 2 GPUs of 24.0 and 24.0 GB" in caplog.text
    files, _ = run_pipeline.configure(run_pipeline.STEPS[3], hardware, arguments)
    assert files == ["config/grpo_config.yaml", "config/hardware/2x24gb.yaml"]
    steps = run_pipeline.STEPS
    options = [run_pipeline.launch_options(step, hardware, arguments) for step in steps]
    assert options == [[], [], [], ["2", "--strategy", "fsdp2"]]
    assert run_pipeline.launch_options(steps[3], None, arguments) == ["1"]


@pytest.mark.parametrize(
    ("options", "cards", "name"),
    [
        ([], [23.99], "24gb"),
        (["--profile", "cs336"], [79.6], "80gb"),
        ([], [], None),
        ([], [22.5], None),
        (["--hardware", "none"], [23.99], None),
        (["--set", "devices.train=cpu", "--set", "devices.eval=cpu"], [23.99], None),
        (["--rehearse"], [23.99], None),
        (["--profile", "tiny"], [23.99], None),
        (["--profile", "tiny", "--hardware", "none"], [23.99], None),
    ],
)
def test_a_large_profile_takes_the_overlay_for_the_gpus_that_are_here(
    monkeypatch, options, cards, name
):
    with_cards(monkeypatch, cards)
    arguments = asked(monkeypatch, *options)
    default = run_pipeline.laid_out_for(arguments)
    hardware = launching.chosen_hardware(arguments.hardware, default)
    assert (hardware.name if hardware else None) == name


@pytest.mark.parametrize(
    ("options", "cards", "said"),
    [
        ([], [], "no visible GPU. Run the CPU profile"),
        (["--processes", "3"], [79.6], "choose a divisor"),
        (["--processes", "4"], [79.6], "is to run on 4 GPUs from cuda:0 on, and 1 are visible"),
        (["--processes", "2", "--set", "devices.train=cuda:1"], [79.6, 79.6], "from cuda:1 on"),
        (["--set", "grpo.adapter=lora"], [23.99, 23.99], "not with sharded weights"),
        (["--hardware", "2x24gb", "--rehearse"], [23.99], "is to run on 2 GPUs"),
    ],
)
def test_what_step_3_cannot_have_is_refused_before_step_0(
    monkeypatch, caplog, tmp_path, options, cards, said
):
    with_cards(monkeypatch, cards)
    monkeypatch.setattr(run_pipeline, "run_command", lambda _: pytest.fail("a step was started"))
    source = ("--set", f"run.output_root={tmp_path}", "--set", "data.source=synthetic")
    assert run_pipeline.run_all(asked(monkeypatch, *options, *source)) == 2
    assert said in caplog.text

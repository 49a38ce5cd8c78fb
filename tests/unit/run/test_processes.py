"""Which device each process of a run gets, with the GPUs of other machines faked."""

from __future__ import annotations

import os

import pytest

from src.config.loading import ConfigError, with_values
from src.config.schema import Config
from src.run import devices as devices_module
from src.run import processes
from src.run.devices import computes_on_gpus, engine_config
from src.run.processes import (
    check_devices,
    check_wandb,
    evaluation_device,
    evaluation_engines,
    forget_stale_launch,
    prepare_main_process,
    takes_turns,
    training_device,
    visible_gpus,
    worker_environment,
)

LONG = ["GPU-" + 36 * "a", "GPU-" + 36 * "b"]


@pytest.fixture
def machine(monkeypatch):
    """Say how many cards there are, what CUDA_VISIBLE_DEVICES held, and how many train here."""
    kept = dict(os.environ)

    def say(cards: int, visible: str | None = None, launched: int = 1) -> None:
        monkeypatch.setattr(processes, "present_gpus", lambda: cards)
        monkeypatch.setattr(devices_module, "computes_on_gpus", lambda: True)
        monkeypatch.setattr(processes, "_VISIBLE_AT_START", visible)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(launched))

    yield say
    os.environ.clear()
    os.environ.update(kept)


def configured(train="cuda:0", evaluation="auto", tensor_parallel=1) -> Config:
    values = {"devices.train": train, "devices.eval": evaluation}
    return with_values(Config(), values | {"engine.tensor_parallel": tensor_parallel})


@pytest.mark.parametrize(
    ("cards", "visible", "expected"),
    [
        (2, None, ["0", "1"]),
        (2, "0,1", ["0", "1"]),
        (8, "2, 3", ["2", "3"]),
        (2, "1,0", ["1", "0"]),
        (2, ",".join(LONG), LONG),
        (1, "MIG-" + 36 * "c", ["MIG-" + 36 * "c"]),
        (2, "", []),
        (2, "-1", []),
        (2, "0,-1,1", ["0"]),
        (2, "0,7", ["0"]),
        (0, "0,1", []),
        (0, LONG[0], []),
    ],
)
def test_visible_gpus_are_those_that_cuda_would_see(machine, cards, visible, expected):
    machine(cards, visible)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("visible", "trainer", "worker"),
    [
        (None, "0", "1"),
        ("0,1", "0", "1"),
        ("2,3", "2", "3"),
        (",".join(LONG), LONG[0], LONG[1]),
    ],
)
def test_trainer_and_worker_see_a_gpu_each_and_no_other(machine, visible, trainer, worker):
    machine(4, visible)
    config = configured()
    check_devices(config)
    prepare_main_process(config)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == trainer
    assert training_device(config) == "cuda:0"
    for _ in range(2):  # the second time for a worker that is started again
        with worker_environment(config):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == worker
            assert "LOCAL_WORLD_SIZE" not in os.environ
        assert os.environ["CUDA_VISIBLE_DEVICES"] == trainer


def test_a_run_of_one_process_meets_itself_on_a_port_of_its_own(machine, monkeypatch):
    """TRL takes 29500 where nobody listens yet, and so does a second run that starts with it."""
    machine(4, None)
    ports = set()
    for _ in range(2):
        monkeypatch.delenv("MASTER_PORT", raising=False)
        prepare_main_process(configured())
        ports.add(os.environ["MASTER_PORT"])
    assert len(ports) == 2
    monkeypatch.setenv("MASTER_PORT", "29501")  # a launcher's own
    prepare_main_process(configured())
    assert os.environ["MASTER_PORT"] == "29501"


def test_the_processes_of_a_machine_see_their_gpus_together(machine, monkeypatch):
    machine(4, None, launched=2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    config = configured("cuda:1")
    prepare_main_process(config)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert training_device(config) == "cuda:1"
    with worker_environment(config):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize(
    ("cards", "launched", "train", "expected"),
    [
        (1, 1, "cuda:0", "cuda:0"),
        (2, 1, "cuda:0", "cuda:1"),
        (2, 1, "cuda:1", "cuda:0"),
        (4, 1, "cuda:2", "cuda:3"),
        (3, 2, "cuda:0", "cuda:2"),
        (2, 2, "cuda:0", "cuda:0"),
        (0, 1, "cpu", "cpu"),
        (2, 1, "cpu:0", "cpu:0"),
    ],
)
def test_auto_evaluates_on_a_gpu_that_nothing_trains_on(machine, cards, launched, train, expected):
    machine(cards, None, launched)
    assert evaluation_device(configured(train)) == expected


def test_a_worker_without_a_gpu_of_its_own_sees_that_of_the_trainer(machine):
    machine(1)
    with worker_environment(configured()):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    with worker_environment(configured("cpu")):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_without_a_gpu_the_message_names_the_cpu_profile_alone(machine):
    machine(0)
    with pytest.raises(ConfigError) as error:
        check_devices(configured())
    assert "run_pipeline.py --profile tiny" in str(error.value)
    assert "cuda:0 with" not in str(error.value)
    assert "--set" not in str(error.value)


def test_a_gpu_that_is_not_there_is_refused_with_one_that_is(machine):
    machine(2)
    with pytest.raises(ConfigError, match=r"devices\.eval: cuda:2 is not there \(2 GPUs.*cuda:1"):
        check_devices(configured(evaluation="cuda:2"))
    machine(2, None, launched=3)
    with pytest.raises(ConfigError, match="3 processes need cuda:0 to cuda:2, and 2 GPUs"):
        check_devices(configured())
    machine(2, "GPU-8932f937")
    with pytest.raises(ConfigError, match="'GPU-8932f937' is a shortened name"):
        check_devices(configured())


@pytest.mark.parametrize("evaluation", ["auto", "cuda:1"])
def test_several_trainers_and_an_evaluation_worker_share_no_gpu(machine, evaluation):
    machine(2, None, launched=2)
    config = configured(evaluation=evaluation)
    with pytest.raises(ConfigError, match=r"leaves no GPU of 2 .* launch 1 process"):
        check_devices(config)
    check_devices(config, beside=False)  # step 3 has its engine inside the trainer
    machine(3, None, launched=2)
    check_devices(configured())


def test_an_environment_for_a_cpu_is_not_taken_for_one_of_gpus(machine, monkeypatch):
    """vLLM's build for a CPU would compute there, whatever device is named."""
    machine(1)
    monkeypatch.setattr(devices_module, "computes_on_gpus", computes_on_gpus)
    monkeypatch.setattr(devices_module, "version", lambda _: "2.13.0+cpu")
    for train, evaluation in (("cuda:0", "auto"), ("cuda:0", "cpu"), ("cpu", "cuda:0")):
        with pytest.raises(ConfigError, match=r"is for a CPU .*uv sync --extra vllm"):
            check_devices(configured(train, evaluation))
    check_devices(configured("cpu", "cpu"))
    for built in ("2.13.0", "2.13.0+cu130"):
        monkeypatch.setattr(devices_module, "version", lambda _, built=built: built)
        check_devices(configured())


def test_an_engine_that_step_3_does_not_start_may_be_too_large(machine):
    machine(4, None, launched=4)
    config = configured(tensor_parallel=2)
    check_devices(config, beside=False)
    rated = with_values(config, {"grpo.order": "pass_rate"})
    with pytest.raises(ConfigError, match="an engine of 2 GPUs is wanted"):
        check_devices(rated, beside=False)


@pytest.mark.parametrize(
    ("cards", "launched", "train", "size", "beside_training", "alone"),
    [
        (1, 1, "cuda:0", 1, [["cuda:0"]], [["cuda:0"]]),
        (2, 1, "cuda:0", 1, [["cuda:1"]], [["cuda:0"], ["cuda:1"]]),
        (3, 1, "cuda:1", 1, [["cuda:2"], ["cuda:0"]], [["cuda:0"], ["cuda:1"], ["cuda:2"]]),
        (4, 2, "cuda:0", 1, [["cuda:2"], ["cuda:3"]], None),
        (4, 1, "cuda:0", 2, [["cuda:1", "cuda:2"]], [["cuda:0", "cuda:1"], ["cuda:2", "cuda:3"]]),
        (2, 1, "cpu", 1, [["cpu"]], [["cpu"]]),
    ],
)
def test_auto_gives_each_free_gpu_an_engine(
    machine, cards, launched, train, size, beside_training, alone
):
    machine(cards, None, launched)
    config = configured(train, tensor_parallel=size)
    check_devices(config)
    assert evaluation_engines(config) == beside_training
    if alone:
        check_devices(config, trains=False)
        assert evaluation_engines(config, trains=False) == alone


@pytest.mark.parametrize("visible", [None, "4,5,6,7"])
def test_each_engine_sees_its_gpus_alone(machine, visible):
    machine(8, visible)
    config = configured(evaluation=["cuda:1", "cuda:3", "cuda:2", "cuda:0"], tensor_parallel=2)
    seen = []
    for devices in evaluation_engines(config, trains=False):
        with worker_environment(engine_config(config, devices, range(0))):
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == (["1,3", "2,0"] if visible is None else ["5,7", "6,4"])


def test_each_engine_computes_on_its_cores_with_as_many_threads(machine, monkeypatch):
    machine(0)
    pinned = []
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: pinned.append(list(cores)))
    config = configured("cpu:0-3", ["cpu:4,5,6", "cpu:7"])
    check_devices(config)
    threads = []
    for devices in evaluation_engines(config):
        with worker_environment(engine_config(config, devices, range(0))):
            threads.append(os.environ["OMP_NUM_THREADS"])
    assert threads == ["3", "1"]
    assert pinned[::2] == [[4, 5, 6], [7]]  # and back again after each


@pytest.mark.parametrize(
    ("train", "evaluation", "expected"),
    [
        ("cpu", "cpu", True),
        ("cpu", "cpu:1", True),  # one of the trainer's cores
        ("cpu:0", "cpu:1", False),
        ("cpu:0", ["cpu:1", "cpu:2"], False),
        ("cpu:0-1", ["cpu:1", "cpu:2"], True),
        ("cuda:0", "auto", False),
        ("cuda:0", "cuda:0", True),
        ("cuda:0", "cpu", False),
    ],
)
def test_who_shares_a_device_takes_turns(machine, monkeypatch, train, evaluation, expected):
    machine(2)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(processes, "available_cores", lambda: list(range(8)))
    monkeypatch.setattr("src.run.devices.available_cores", lambda: list(range(8)))
    assert takes_turns(configured(train, evaluation)) is expected


@pytest.mark.parametrize(
    ("evaluation", "size", "trains", "told"),
    [
        (["cuda:0", "cuda:1"], 1, True, r"cuda:0 of cuda:0, cuda:1 is trained on.*\[cuda:1\]"),
        (["cuda:1", "cuda:4"], 1, True, r"cuda:4 is not there \(4 GPUs visible"),
        (["cuda:1", "gpu"], 1, True, "'gpu' is not a device"),
        (["cpu:0-1", "cpu:1"], 1, False, r"cpu:0-1 and cpu:1 share the cores \[1\]"),
        ("auto", 4, True, "an engine of 4 GPUs is wanted, .* cuda:1, cuda:2, cuda:3; lower it"),
    ],
)
def test_devices_that_engines_cannot_have_are_told(
    machine, monkeypatch, evaluation, size, trains, told
):
    machine(4)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    with pytest.raises(ConfigError, match=told):
        check_devices(configured(evaluation=evaluation, tensor_parallel=size), trains=trains)


def test_where_nothing_trains_an_engine_may_have_the_trainers_gpu(machine):
    machine(2)
    check_devices(configured(evaluation=["cuda:0", "cuda:1"]), trains=False)
    check_devices(configured(evaluation=["cuda:0", "cuda:1"]), beside=False)


def test_an_engine_takes_half_of_a_card_that_is_trained_on(machine):
    machine(2)
    config = configured()
    for devices, training, share in (
        (["cuda:1"], range(1), 0.85),
        (["cuda:0"], range(1), 0.425),
        (["cuda:0"], range(0), 0.85),
    ):
        own = engine_config(config, devices, training)
        assert own.engine.memory_fraction == share
        assert own.devices.eval == devices[0]
    pair = engine_config(config, ["cuda:0", "cuda:1"], range(0))
    assert pair.devices.eval == ["cuda:0", "cuda:1"]


LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def launch(monkeypatch):
    """Set what a launcher sets, and nothing else of its."""

    def say(**values: str) -> None:
        for name in LAUNCHED:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return say


@pytest.mark.parametrize(
    ("values", "planning", "kept"),
    [
        ({}, False, 1),
        ({"RANK": "3", "WORLD_SIZE": "4"}, False, 1),
        ({"RANK": "3", "WORLD_SIZE": "4"}, True, 1),
        ({"RANK": "x"}, False, 1),
        ({"LOCAL_RANK": "1"}, False, 1),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, False, 1),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, True, 4),  # launch_trl.sh asks for a plan
        ({"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1"}, False, 4),
    ],
)
def test_what_a_launcher_left_is_forgotten(launch, values, planning, kept):
    launch(**values)
    forgotten = forget_stale_launch(planning=planning)
    assert set(forgotten) == (set(values) if kept == 1 else set())
    assert processes.process_count() == kept
    assert processes.process_rank() == (3 if kept == 4 and "RANK" in values else 0)


@pytest.mark.parametrize("rank", ["4", "x", "-1"])
def test_a_rank_that_no_launcher_gives_is_refused(launch, rank):
    launch(RANK=rank, WORLD_SIZE="4", MASTER_ADDR="127.0.0.1")
    with pytest.raises(ConfigError, match=f"RANK={rank} with WORLD_SIZE=4 .*unset RANK WORLD_SIZE"):
        forget_stale_launch(planning=False)


def test_online_wants_a_key(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    auto = with_values(Config(), {"wandb.mode": "auto"})
    with pytest.raises(ConfigError, match="WANDB_MODE=online, and no key is set"):
        check_wandb(auto)
    with pytest.raises(ConfigError, match=r"wandb\.mode=online, and no key is set"):
        check_wandb(with_values(Config(), {"wandb.mode": "online"}))
    monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(ConfigError, match="WANDB_MODE=offlin: expected one of online, offline"):
        check_wandb(auto)
    for mode in ("offline", "disabled"):
        monkeypatch.setenv("WANDB_MODE", mode)
        check_wandb(auto)
    monkeypatch.setenv("WANDB_MODE", "online")
    netrc.write_text("machine api.wandb.ai login user password x\n")
    check_wandb(auto)

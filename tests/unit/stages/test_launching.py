"""What launches GRPO: addresses, options of the launcher, accelerate's configurations."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from runpy import run_path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from torch.distributed import TCPStore

from src.config.loading import ConfigError, with_values
from src.config.schema import Config
from src.grpo.callback import last_whole_state
from src.run.directory import Run
from src.run.network import NetworkError, free_port, reaching_interface, serving_interface
from tests.conftest import NO_DATA, ROOT

LAUNCHER = ROOT / "step3_GRPO" / "launch_trl.sh"


def test_a_free_port_can_be_listened_on():
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


def test_the_interface_of_this_machine():
    assert serving_interface("127.0.0.1", free_port()) == "lo"
    assert reaching_interface("localhost", 29500) == "lo"


def test_a_port_that_is_taken_and_an_address_that_is_not_here():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(NetworkError, match="cannot listen there"):
            serving_interface("127.0.0.1", server.getsockname()[1])
    with pytest.raises(NetworkError, match="cannot listen there"):
        serving_interface("192.0.2.1", 29500)  # reserved for documentation
    with pytest.raises(NetworkError, match="no such machine"):
        reaching_interface("no-such-machine.invalid", 29500)


def test_the_store_listens_on_the_address_it_is_reached_at_alone():
    """Every address of 127.0.0.0/8 is this machine's, so a second one stands for its others."""
    ranks = run_path(str(ROOT / "step3_GRPO" / "launch_ranks.py"))
    port = free_port()
    store = ranks["store_at_one_address"](
        "127.0.0.1", port, 1, True, timedelta(seconds=5), multi_tenant=True
    )
    store.set("key", "value")
    assert TCPStore("127.0.0.1", port, 1, False, timedelta(seconds=5)).get("key") == b"value"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


@pytest.mark.parametrize(
    ("exits", "code"), [("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137), ("pass", 0)]
)
def test_a_failed_process_leaves_its_exit_code_and_no_traceback(exits, code, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(f"import os, sys\n{exits}\n")
    command = [
        sys.executable, str(ROOT / "step3_GRPO" / "launch_ranks.py"), "torch.distributed.run",
        "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(free_port()),
        str(script),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "torch" not in done.stderr
    assert ("process 0 of this run was killed by SIGKILL" in done.stderr) == (code == 137)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--nodes", "2", "--node-rank", "2"], "expected a number from 0 to 1"),
        (["--nodes", "two"], "expected a number from 1 on"),
        (["0"], "at least 1"),
        (["--strategy", "zero9"], "use ddp, fsdp2, zero2 or zero3"),
        (["--main"], "--main needs a value"),
    ],
)
def test_the_launcher_refuses_what_cannot_be(options, says):
    done = subprocess.run([LAUNCHER, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr


def test_the_plan_counts_the_processes_of_all_machines():
    command = [LAUNCHER, "4", "--nodes", "2", "--node-rank", "1", "--mode", "server", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 process(es) x 8 a micro-batch x 4 accumulated = 256 completions" in done.stdout
    assert "vLLM server" in done.stdout


def test_more_processes_than_groups_are_refused():
    command = [LAUNCHER, "3", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "choose a divisor" in done.stderr
    assert "shared evenly" in done.stderr


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3"])
def test_accelerate_reads_its_configurations(name):
    config = load_config_from_file(str(ROOT / "config" / "accelerate" / f"{name}.yaml"))
    kinds = {"ddp": "MULTI_GPU", "fsdp2": "FSDP"}
    assert config.distributed_type == kinds.get(name, "DEEPSPEED")
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
    if name.startswith("zero"):
        assert config.deepspeed_config["zero_stage"] == int(name[-1])


def test_a_state_that_was_cut_short_is_passed_over(tmp_path):
    assert last_whole_state(tmp_path) is None
    for step in (2, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 10):
        cursor = tmp_path / f"checkpoint-{step}" / "rollout_source.json"
        cursor.write_text(json.dumps({"cursor": step}))
    assert last_whole_state(tmp_path) == tmp_path / "checkpoint-10"


def test_a_folder_is_worked_on_by_one_process_at_a_time(tmp_path):
    """A launcher that was killed may leave its training behind; a second must not join it."""
    config = with_values(Config(), {"run.output_root": str(tmp_path)})
    first = Run("step3_GRPO", config)
    first.begin(data=NO_DATA, model="m")
    with pytest.raises(ConfigError, match=rf"another process \(process {os.getpid()} on "):
        Run("step3_GRPO", config, resume=True).begin(data=NO_DATA, model="m")
    Run("step2_sft", config).begin(data=NO_DATA, model="m")
    first.finish()
    Run("step3_GRPO", config, resume=True).begin(data=NO_DATA, model="m")


@pytest.mark.parametrize(
    ("stage", "changed", "same"),
    [
        ("step0_baseline", {"train.optimizer": "adamw_8bit", "grpo.steps": 7}, True),
        ("step0_baseline", {"sampling.temperature": 0.5}, False),
        ("step2_sft", {"grpo.adapter": "lora"}, True),
        ("step2_sft", {"train.optimizer": "adamw_8bit"}, False),
        ("step3_GRPO", {"grpo.steps": 7}, False),
    ],
)
def test_a_stage_goes_on_under_other_settings_of_later_stages(tmp_path, stage, changed, same):
    """What a larger card or a second try at step 3 changes costs no baseline."""
    config = with_values(Config(), {"run.output_root": str(tmp_path)})
    first = Run(stage, config)
    first.begin(data=NO_DATA, model="m")
    first.finish()
    later = Run(stage, with_values(config, changed), resume=True)
    assert later.already_finished() == same

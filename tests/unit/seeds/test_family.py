"""Runs that differ in their seed: where they are, what they build on, and what all say together."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from statistics import stdev

import pytest
import yaml

from src.config.loading import ConfigError, load_config
from src.report.verification import is_family, verify_family
from src.seeds.family import Family, parse_seeds, run_seeds, without_seeds
from src.seeds.figures import build_figures
from src.seeds.report import write_family
from tests.unit.benchmarks.test_benchmarks import write_benchmarks
from tests.unit.report.test_report import SEARCH, N, scored, write_run

TINY = "config/tiny/grpo_config.yaml"


@pytest.fixture
def family(tmp_path):
    return Family(load_config([TINY], [f"run.output_root={tmp_path}"]), (1, 2, 3))


def write_members(family, correct, **changes):
    """Write step 2 and step 3 of each seed; `correct` is of step 3."""
    for seed, count in zip(family.seeds, correct, strict=True):
        outcomes = [scored("step2_sft", 40, **changes), scored("step3_GRPO", count, **changes)]
        for outcome in outcomes:
            outcome["sampling"] = outcome["sampling"] | {"seed": seed}
        folder = write_run(family.member(seed), *outcomes)
        for outcome in outcomes:
            (folder / outcome["stage"] / "config.yaml").write_text("run: {}\n")
    return family.members()


def test_each_seed_is_a_run_of_its_own_on_the_same_problems(family, tmp_path):
    settings = family.settings(2, None)[1::2]
    config = load_config([TINY], [f"run.output_root={tmp_path}", *settings])
    assert (config.run.seed, config.run.name, config.data.seed) == (2, "tiny-seed2", 17)
    assert family.member(2) == tmp_path / "tiny-seed2"
    assert family.folder == tmp_path / "tiny-seeds"
    assert replace(family, rehearsal=True).member(2) == tmp_path / "tiny-seed2-rehearsal"


@pytest.mark.parametrize("text", ["1", "1,1", "a,b", "-1,2", ""])
def test_what_is_no_list_of_seeds_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="such as 1,2,3"):
        parse_seeds(text)


def test_a_command_without_its_seeds():
    assert without_seeds(["m", "--seeds", "1,2", "--resume"]) == ["m", "--resume"]
    assert without_seeds(["--seeds=1,2", "--set", "a.b=c"]) == ["--set", "a.b=c"]


def test_a_stage_alone_builds_on_its_own_seeds(family):
    write_members(family, (50, 52, 54))
    write_run(family.base, scored("step2_sft", 40))
    assert family.earlier_run(["step3_GRPO"], "sft") is None


def test_a_stage_alone_builds_on_the_base_run_where_no_seed_has_the_earlier_one(family, caplog):
    assert family.earlier_run(["step3_GRPO"], "sft") is None  # the stage says what is missing
    write_run(family.base, scored("step2_sft", 40))
    with caplog.at_level("INFO"):
        assert family.earlier_run(["step3_GRPO"], "sft") == "tiny"
    assert "step3_GRPO alone" in caplog.text
    assert family.earlier_run(["step2_sft", "step3_GRPO"], "sft") is None
    assert family.earlier_run(["step3_GRPO"], "base") is None


def test_seeds_that_would_start_from_different_things_are_refused(family):
    write_run(family.base, scored("step2_sft", 40))
    write_run(family.member(2), scored("step2_sft", 40))
    with pytest.raises(ConfigError, match="finished for seed 2 and not for seeds 1, 3"):
        family.earlier_run(["step3_GRPO"], "sft")


def test_seeds_run_one_after_another_and_end_with_the_first_failure(family, monkeypatch):
    commands = []

    def run(command):
        commands.append(command)
        return 3 if "run.seed=2" in command else 0

    monkeypatch.setattr("src.seeds.family.run_command", run)
    assert run_seeds(family, ["script", "--resume"], "tiny") == 3
    assert [command[:2] for command in commands] == [["script", "--resume"]] * 2
    assert "run.earlier=tiny" in commands[0]


def test_spread_and_interval_stand_side_by_side(family):
    members = write_members(family, (50, 52, 57))
    figures = build_figures(members)
    last = figures["stages"][-1]
    accuracies = [50 / N, 52 / N, 57 / N]
    assert last["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 3)
    assert (last["accuracy"]["low"], last["accuracy"]["high"]) == (50 / N, 57 / N)
    assert last["accuracy"]["sd"] == pytest.approx(stdev(accuracies))
    low, high = last["over_problems"]
    assert low < last["accuracy"]["mean"] < high
    found = last["improvement"]
    assert (found["before"], found["shared"]) == ("step2_sft", False)
    assert [one["won"] for one in found["each"].values()] == [10, 12, 17]
    assert found["difference"]["mean"] == pytest.approx(13 / N)
    assert figures["stages"][0]["improvement"] is None


def test_a_stage_alone_is_compared_with_the_run_it_built_on(family):
    write_run(family.base, scored("step2_sft", 40))
    for seed, count in zip(family.seeds, (50, 52, 57), strict=True):
        folder = write_run(family.member(seed), scored("step3_GRPO", count))
        config = {"run": {"earlier": "tiny"}}
        (folder / "step3_GRPO" / "config.yaml").write_text(yaml.safe_dump(config))
    (only,) = build_figures(family.members())["stages"]
    assert (only["improvement"]["before"], only["improvement"]["shared"]) == ("step2_sft", True)
    write_family(family.folder, family.members())
    assert "spread is that of step3_GRPO alone" in (family.folder / "report.md").read_text()


def test_the_report_says_which_is_which(family, capsys):
    members = write_members(family, (50, 52, 57))
    for folder in members.values():
        write_run(folder, SEARCH)
    page = write_family(family.folder, members)
    text = (family.folder / "report.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| step3_GRPO | 80"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert (cells[2], cells[4], cells[5]) == ("66.2", "62.5 to 71.2", "4.5")
    assert "Over problems" in text
    assert "Between seeds" in text
    assert "seeds 1, 2, 3" in page.read_text()
    assert page.read_text().count("<circle") == 6
    assert "learning_rate" in text
    assert "66.2" in capsys.readouterr().out
    assert json.loads((family.folder / "report.json").read_text())["seeds"] == [1, 2, 3]


def test_a_changed_report_of_all_seeds_is_found(family, monkeypatch):
    monkeypatch.setattr("src.report.verification.verify_run", lambda place: [])
    members = write_members(family, (50, 52, 57))
    write_family(family.folder, members)
    assert is_family(family.folder)
    assert not is_family(family.member(1))
    assert verify_family(family.folder) == []
    file = family.folder / "report.json"
    file.write_text(file.read_text().replace('"high": 0.7125', '"high": 0.8125', 1))
    (line,) = verify_family(family.folder)
    assert "0.8125 is stated, 0.7125 derived" in line


def test_seeds_measured_on_other_problems_are_refused(family):
    write_members(family, (50, 52, 57))
    file = family.member(3) / "step3_GRPO" / "outcome.json"
    outcome = json.loads(file.read_text())
    file.write_text(json.dumps(outcome | {"test_set": {"n": N, "sha256": "c" * 64}}))
    with pytest.raises(ConfigError, match="not measured alike"):
        build_figures(family.members())


def test_benchmarks_of_each_seeds_last_model_have_a_spread_too(family):
    members = write_members(family, (50, 52, 57))
    for right, folder in zip((2, 3, 4), members.values(), strict=True):
        last = scored("step3_GRPO", 50)["checkpoint"]
        write_benchmarks(folder / "benchmarks" / "m", last, right)
        write_benchmarks(folder / "benchmarks" / "base", "assets/tiny_base", 0)
    (found,) = build_figures(members)["benchmarks"]
    assert found["each"] == {"1": 2 / 6, "2": 3 / 6, "3": 4 / 6}
    assert found["accuracy"]["sd"] == pytest.approx(1 / 6)
    low, high = found["over_problems"]
    assert low < 0.5 < high


def test_nothing_finished_is_said(family):
    with pytest.raises(ConfigError, match="no stage has finished for all seeds"):
        build_figures(family.members())

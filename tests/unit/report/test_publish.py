"""What is given away: a folder that loads, a card with the report's figures."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from src.config.loading import ConfigError, load_config, with_values
from src.config.schema import Config
from src.data.chat import stage_prompt
from src.data.prompts import load_prompt
from src.data.token_ids import prompt_ids
from src.report import publish
from src.run.directory import reported_checkpoint, reported_model
from src.run.files import append_jsonl
from src.training.policy import load_tokenizer
from tests.conftest import TINY_BASE
from tests.family_models import write_family
from tests.unit.report.test_report import completions, scored

PROMPT = load_prompt("prompts/rl_zero.prompt")


@pytest.fixture
def run(tmp_path):
    """Make a run of two scored stages; step 3's checkpoint is the tiny base, made elsewhere."""
    settings = {"run.profile": "tiny", "model.path": "assets/tiny_base", "data.source": "synthetic"}
    config = with_values(Config(), settings).model_dump(mode="json")
    folder = tmp_path / "moved"
    for stage, correct in (("step2_sft", 20), ("step3_GRPO", 48)):
        place = f"/elsewhere/results/made_up/{stage}/checkpoints/step_000060"
        outcome = scored(stage, correct, checkpoint=place, prompt_sha256=PROMPT.sha256)
        (folder / stage).mkdir(parents=True)
        (folder / stage / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / stage / "outcome.json").write_text(json.dumps(outcome))
        (folder / stage / "manifest.json").write_text(json.dumps({"seed": 17}))
        append_jsonl(folder / stage / "completions.jsonl", completions(correct))
    checkpoint = folder / "step3_GRPO" / "checkpoints" / "step_000060"
    shutil.copytree(TINY_BASE, checkpoint)
    (checkpoint / "probe.json").write_text("{}")
    (checkpoint / "training_state.pt").write_text("")
    return folder


def test_the_folder_loads_and_its_card_has_the_reports_figures(run):
    folder = publish.prepare(run, "somebody/small-model")
    names = {file.name for file in folder.iterdir()}
    assert {"README.md", "prompt.txt", "manifest.json", "report.json", "tokenizer.json"} <= names
    assert not names & {"probe.json", "training_state.pt"}
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.num_parameters() > 1_000_000
    assert AutoTokenizer.from_pretrained(folder).encode("12 + 30")
    assert (folder / "prompt.txt").read_text() == PROMPT.text
    card = (folder / "README.md").read_text()
    report = json.loads((folder / "report.json").read_text())
    rows = [line for line in card.splitlines() if line.startswith("| ste")]
    table = [row.strip("| ").split(" | ") for row in rows]
    for entry, (stage, n, accuracy, form, anywhere, *gain) in zip(
        report["stages"], table, strict=True
    ):
        low, high = entry["accuracy_ci95"]
        assert (stage, n) == (entry["stage"], str(entry["n"]))
        stated = [float(number) for number in re.findall(r"[\d.]+", accuracy)]
        assert stated == pytest.approx([100 * x for x in (entry["accuracy"], low, high)], abs=0.05)
        assert float(form) == pytest.approx(100 * entry["format_rate"], abs=0.05)
        assert float(anywhere) == pytest.approx(100 * entry["accuracy_anywhere"], abs=0.05)
        if entry["improvement"]:
            assert gain == [entry["improvement"]["said"]]
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "mit"
    assert "/elsewhere" not in (folder / "report.json").read_text()
    assert "results/made_up/step3_GRPO/checkpoints" in (folder / "report.json").read_text()
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 60.0
    for part in (PROMPT.text, "seed 17", "commit abc1234", "1,600 train", "manifest.json"):
        assert part in card


def test_nothing_is_sent_unasked(run, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(publish, "push", refuse)
    monkeypatch.setattr(publish, "get_token", refuse)
    assert publish.main([str(run), "--repo", "somebody/small-model"]) == 0
    config = with_values(Config(), {"hub.repo": "somebody/small-model", "hub.licence": "mit"})
    publish.publish(config, run)


def test_without_a_token_nothing_is_sent(run, monkeypatch, caplog):
    monkeypatch.setattr(publish, "get_token", lambda: None)
    monkeypatch.setattr(publish, "HfApi", None)
    assert publish.main([str(run), "--repo", "somebody/small-model", "--push"]) == 2
    assert "no token is set, so nothing was sent" in caplog.text
    assert (run / "hub" / "README.md").is_file()


def test_a_push_creates_a_private_repository(run, monkeypatch):
    asked = []

    class Hub:
        def create_repo(self, repo, **how):
            asked.append(("create", repo, how))

        def upload_folder(self, **how):
            asked.append(("upload", how["repo_id"], how["folder_path"]))
            return "done"

    monkeypatch.setattr(publish, "get_token", lambda: "a token")
    publish.push(run, "somebody/small-model", api=Hub())
    assert asked == [
        ("create", "somebody/small-model", {"private": True, "exist_ok": True}),
        ("upload", "somebody/small-model", run),
    ]


def test_what_cannot_be_given_away_is_said(run, tmp_path):
    for name in ("small-model", "a/b/c", "some body/x"):
        with pytest.raises(ConfigError, match=r"hub\.repo"):
            publish.prepare(run, name)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="other files"):
        publish.prepare(run, "somebody/small-model", output=tmp_path / "mine")
    shutil.rmtree(run / "step3_GRPO" / "checkpoints")
    with pytest.raises(ConfigError, match="checkpoint of step3_GRPO is missing"):
        publish.prepare(run, "somebody/small-model")
    with pytest.raises(ValueError, match=r"hub\.repo names no repository"):
        with_values(Config(), {"hub.push": True})


def test_a_run_that_was_moved_still_has_its_checkpoint(run, tmp_path):
    outcome = json.loads((run / "step3_GRPO" / "outcome.json").read_text())
    moved = shutil.copytree(run, tmp_path / "elsewhere")
    found = reported_checkpoint(moved / "step3_GRPO", outcome)
    assert found.is_dir()
    assert found.is_relative_to(moved)
    assert reported_model(moved / "step3_GRPO", outcome) == str(found)
    asked = {"stage": "step0_baseline", "checkpoint": "/models/base"}
    assert reported_model(moved / "step0_baseline", asked) == "/models/base"


def test_a_rehearsal_is_not_given_away(run):
    for file in run.glob("*/outcome.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"rehearsal": True}))
    with pytest.raises(ConfigError, match="a rehearsal"):
        publish.prepare(run, "somebody/small-model")


def test_the_licence_of_an_unknown_base_must_be_named(run):
    for file in run.glob("*/config.yaml"):
        config = yaml.safe_load(file.read_text())
        config["model"]["path"] = "somebody/unknown"
        file.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"hub\.licence"):
        publish.prepare(run, "somebody/small-model")
    card = (publish.prepare(run, "somebody/x", licence="apache-2.0") / "README.md").read_text()
    assert "base_model: somebody/unknown" in card


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_the_card_asks_a_chat_model_as_it_was_measured(run, kind):
    checkpoint = run / "step3_GRPO" / "checkpoints" / "step_000060"
    shutil.rmtree(checkpoint)
    write_family(kind, checkpoint)
    config = load_config([run / "step3_GRPO" / "config.yaml"])
    asked = stage_prompt(config, load_tokenizer(str(checkpoint), config))
    assert asked.text != PROMPT.text
    for stage in ("step2_sft", "step3_GRPO"):
        file = run / stage / "outcome.json"
        outcome = json.loads(file.read_text()) | {"prompt_sha256": asked.sha256}
        file.write_text(json.dumps(outcome))
    folder = publish.prepare(run, "somebody/chats", licence="mit")
    assert (folder / "prompt.txt").read_text() == asked.text
    card = (folder / "README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (used,) = re.findall(r"add_special_tokens=(True|False)", card)
    ids = tokenizer(asked.text, add_special_tokens=used == "True")["input_ids"]
    assert ids == prompt_ids(tokenizer, [asked.text])[0]

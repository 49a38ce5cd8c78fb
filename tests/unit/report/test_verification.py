"""What `--verify` derives of a stage's data, where the stage is not there to be run."""

from __future__ import annotations

import json
import shutil

import pytest

from src.config.loading import ConfigError, dump_yaml, load_config
from src.data.chat import stage_prompt
from src.data.problems import load_problems
from src.data.prompts import load_prompt
from src.report.verification import _Data
from src.sft.rows import training_rows
from src.training.policy import load_tokenizer
from tests.family_models import write_family


@pytest.mark.parametrize("chat", ["on", "off"])
def test_rows_of_files_are_compared_as_the_stage_asked_for_them(tmp_path, chat):
    model = write_family("llama", tmp_path / "model")
    settings = [f"model.path={model}", f"data.chat={chat}", "data.train_rows=8", "data.test_rows=4"]
    config = load_config(["config/tiny/sft_config.yaml"], settings)
    problems = load_problems(config)
    prompt = stage_prompt(config, load_tokenizer(str(model), config))
    assert ("<|eot_id|>" in prompt.text) == (chat == "on")
    rows = [{"prompt": prompt.render(item), "completion": item.solution} for item in problems.test]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0] | {"prompt": "x"}]))
    config = load_config(
        ["config/tiny/sft_config.yaml"], [*settings, f"sft.files=[{{file: {file}, weight: 1.0}}]"]
    )
    folder = tmp_path / "step2_sft"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_yaml(config))

    stated = training_rows(config, problems, prompt).provenance(problems)
    assert _Data().provenance(folder) == stated
    asked = [row["fitted"] for row in stated["sft_files_duplicates"]["contained"]["examples"]]
    assert asked == [item.problem for item in problems.test]
    plain = training_rows(config, problems, load_prompt(config.data.prompt)).provenance(problems)
    assert (plain == stated) == (chat == "off")

    shutil.rmtree(model)
    with pytest.raises(ConfigError, match="model"):
        _Data().provenance(folder)

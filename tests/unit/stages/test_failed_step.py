"""A step that died without a word: the pipeline says where its last words are."""

from __future__ import annotations

import pytest

import run_pipeline


@pytest.mark.parametrize(("code", "named"), [(-11, True), (1, True), (2, False)])
def test_the_log_is_named_unless_the_mistake_was_told(code, named, tmp_path, monkeypatch, caplog):
    log = tmp_path / "small" / "step0_baseline" / "run.log"
    log.parent.mkdir(parents=True)
    log.write_text("Segmentation fault")
    settings = ["--set", f"run.output_root={tmp_path}", "--set", "run.name=small"]
    monkeypatch.setattr("sys.argv", ["run_pipeline.py", "--profile", "tiny", *settings])
    monkeypatch.setattr(run_pipeline, "run_step", lambda *_: code)
    assert run_pipeline.run_all(run_pipeline.parse_arguments()) == code
    assert f"step 0 ended with exit code {code}" in caplog.text
    assert (str(log) in caplog.text) == named

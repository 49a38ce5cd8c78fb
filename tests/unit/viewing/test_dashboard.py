"""W&B's viewer gets all W&B runs of the newest pipeline run."""

from __future__ import annotations

import os

from src.viewing import dashboard


def wandb_run(run, place, name, when):
    folder = run / place / "wandb" / name
    folder.mkdir(parents=True)
    file = folder / f"run-{name[-2:]}.wandb"
    file.write_text(name)
    os.utime(folder, (when, when))
    return folder


def test_the_newest_run_is_found_and_gathered(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    wandb_run(old, "step2_sft", "offline-run-20260101_000000-aa", 100)
    last = wandb_run(new, "step3_GRPO", "offline-run-20260103_000000-bb", 300)
    first = wandb_run(new, ".", "offline-run-20260102_000000-cc", 200)
    (new / "step3_GRPO" / "wandb" / "offline-run-20260104_000000-dd").mkdir()  # nothing logged
    assert dashboard.newest_run(tmp_path) == new
    assert dashboard.wandb_runs(new) == [first, last]
    gathered = tmp_path / "gathered"
    gathered.mkdir()
    dashboard.gather([first, last], gathered)
    (last / "run-bb.wandb").write_text("more")
    assert (gathered / last.name / "run-bb.wandb").read_text() == "more"
    assert not (gathered / last.name).is_symlink()  # the viewer looks for folders


def test_without_runs_it_says_how_to_get_one(tmp_path, capsys):
    assert dashboard.main([str(tmp_path)]) == 2
    assert "make quickstart" in capsys.readouterr().err
    assert dashboard.newest_run(tmp_path / "nowhere") is None

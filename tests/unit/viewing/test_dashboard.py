"""W&B's viewer gets the W&B runs of the newest pipeline run that have curves."""

from __future__ import annotations

from src.viewing import dashboard


def wandb_run(run, stage, name):
    folder = run / stage / "wandb" / f"offline-run-{name}"
    folder.mkdir(parents=True)
    (folder / f"run-{name[-2:]}.wandb").write_text(name)
    return folder


def test_the_newest_run_is_found_and_gathered(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    wandb_run(old, "step2_sft", "20260101_000000-aa")
    last = wandb_run(new, "step3_GRPO", "20260103_000000-bb")
    first = wandb_run(new, "step2_sft", "20260102_000000-cc")
    wandb_run(new, "step3_GRPO", "20260104_000000-dd")
    (new / "step3_GRPO" / "wandb-new-step3_GRPO-test.id").write_text("dd")
    (new / "step3_GRPO" / "wandb-new-step3_GRPO.id").write_text("bb")
    (new / "step3_GRPO" / "wandb" / "offline-run-20260105_000000-ee").mkdir()  # nothing logged
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

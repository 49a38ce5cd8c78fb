"""The W&B workspace is built without a network, of metrics that runs log."""

from __future__ import annotations

import re

import pytest

from src.viewing.workspace import SECTIONS, build_workspace, main
from tests.conftest import ROOT

METRICS = sorted(
    {name for sections in SECTIONS.values() for panels in sections.values()
     for lines in panels for name in lines}
)  # fmt: skip


@pytest.fixture
def no_network(monkeypatch):
    pytest.importorskip("wandb_workspaces", reason="make setup installs it")

    def refuse(*_, **__):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.parametrize("project", SECTIONS)
def test_the_spec_holds_the_panels(project, no_network):
    spec = build_workspace("somebody", project)._to_model().model_dump_json(by_alias=True)
    for panels in SECTIONS[project].values():
        for lines in panels:
            assert all(f'"{name}"' in spec for name in lines)


def test_nothing_is_sent_unasked(no_network, caplog):
    caplog.set_level("INFO")
    assert main(["--entity", "somebody"]) == 0
    assert "nothing was sent" in caplog.text


def test_the_metrics_are_logged():
    """By the last part of their names: sections are put before it in places."""
    code = "\n".join(file.read_text() for file in (ROOT / "src").rglob("*.py")
                     if file.name != "workspace.py")  # fmt: skip
    parts = {name.rpartition("/")[2] for name in METRICS}
    missing = [part for part in parts if not re.search(rf"\b{part.removesuffix('_s')}", code)]
    assert missing == []

"""Where compiled kernels are kept when the home folder cannot be written."""

from __future__ import annotations

import os
import tempfile

import pytest

from src.config.loading import ConfigError
from src.run.scratch import compiled_places

BELOW_HOME = ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where the files go that are compiled, with temporary files of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return f"{tmp_path}/temporary/compiled_{os.getuid()}"


def test_libraries_keep_their_places_below_a_home_that_can_be_written(tmp_path, monkeypatch, kept):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiled_places({}) == {"TORCHINDUCTOR_CACHE_DIR": f"{kept}/torchinductor"}


def test_a_home_that_cannot_be_written(tmp_path, monkeypatch, kept):
    (tmp_path / "file").touch()  # no folder can be made below it, whoever runs the test
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "me"))
    assert compiled_places({"TRITON_CACHE_DIR": str(tmp_path / "mine")}) == {
        "TORCHINDUCTOR_CACHE_DIR": f"{kept}/torchinductor",
        "VLLM_CACHE_ROOT": f"{kept}/vllm",
        "FLASHINFER_WORKSPACE_BASE": f"{kept}/flashinfer",
    }
    caches = {"XDG_CACHE_HOME": str(tmp_path)}
    assert "VLLM_CACHE_ROOT" not in compiled_places(caches)


@pytest.mark.parametrize("name", [*BELOW_HOME, "TORCHINDUCTOR_CACHE_DIR"])
def test_a_named_folder_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"{name}=.*kernels: this folder cannot be written"):
        compiled_places({name: str(tmp_path / "file" / "kernels")})

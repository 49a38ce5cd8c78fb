"""What can be seen of the Dockerfiles without building them."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

FILES = ("Dockerfile", "Dockerfile.cpu")


def _instructions(name: str) -> list[tuple[str, str]]:
    """Return (instruction, arguments), continued lines joined and comments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line]


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_exists(name):
    copied = [arguments.split() for word, arguments in _instructions(name) if word == "COPY"]
    sources = [word for words in copied for word in words[:-1] if not word.startswith("--chown=")]
    assert "." in sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert not [source for source in sources if source.split("/")[0] in ignored]


@pytest.mark.parametrize("name", FILES)
def test_what_is_installed_is_pinned(name):
    instructions = _instructions(name)
    image = next(arguments for word, arguments in instructions if word == "FROM")
    assert re.search(r":\d+\.\d+\.\d+-", image)
    for word, arguments in instructions:
        for command in arguments.split("&&") if word == "RUN" else []:
            if "pip install" in command:
                assert "--no-deps" in command
                assert " -r requirements/" in command or command.strip().endswith("-e .")


@pytest.mark.parametrize("name", FILES)
def test_the_user_is_not_root_and_results_are_a_volume(name):
    instructions = _instructions(name)
    words = [word for word, _ in instructions]
    assert ("USER", "10001") in instructions
    assert ("VOLUME", '["/app/results"]') in instructions
    assert words.index("USER") < words.index("VOLUME")


@pytest.mark.parametrize("name", FILES)
def test_the_command_is_one_of_the_pipeline(name):
    assert ("ENTRYPOINT", '["python", "run_pipeline.py"]') in _instructions(name)
    assert name in (ROOT / "docs" / "docker.md").read_text()


def test_the_page_says_that_nothing_was_built():
    assert "Neither has been built by us" in (ROOT / "docs" / "docker.md").read_text()

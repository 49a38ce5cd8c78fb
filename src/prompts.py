"""Prompt templates and SFT targets: the exact text the model sees and is taught."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from src.config_loading import ConfigError, resolve_path
from utils.problem import Problem

PLACEHOLDER = "{question}"


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A text with one `{question}`."""

    text: str

    @property
    def sha256(self) -> str:
        """Fingerprint of the template."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def render(self, problem: Problem) -> str:
        """Return the prompt for one problem."""
        return self.text.replace(PLACEHOLDER, problem.problem)

    def target(self, problem: Problem) -> str:
        """Return the completion that SFT teaches: reasoning, then the tagged answer.

        The r1_zero prompt ends in `<think>`, so the completion starts inside it; spaces stand as in
        the template's own example.
        """
        if not self.text.rstrip().endswith("<think>"):
            return f" {problem.solution}"
        return f" {problem.solution} </think> <answer> {problem.answer} </answer>"


def load_prompt(path: str) -> PromptTemplate:
    """Read a template.

    Raises:
        ConfigError: when the file is missing or does not hold `{question}` exactly once.
    """
    file = resolve_path(path)
    if not file.is_file():
        raise ConfigError(f"data.prompt: {file}: no such file; see prompts/")
    text = file.read_text(encoding="utf-8").removesuffix("\n")
    if text.count(PLACEHOLDER) != 1:
        raise ConfigError(
            f"data.prompt: {file} holds {PLACEHOLDER} {text.count(PLACEHOLDER)} times; it must "
            "stand exactly once, where the problem goes"
        )
    return PromptTemplate(text)

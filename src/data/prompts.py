"""Prompt templates and SFT targets: the exact text the model sees and is taught."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from src.config.loading import ROOT, ConfigError, resolve_path
from utils.data.problem import Problem
from utils.grading.answer_forms import FormName

PLACEHOLDER = "{question}"
EXAMPLES = "{examples}"


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A text with one `{question}`."""

    text: str

    @property
    def sha256(self) -> str:
        """Fingerprint of the template, worked examples included."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def form(self) -> FormName:
        """Where this prompt asks for the answer."""
        return "tags" if "<answer>" in self.text else "boxed"

    def render(self, problem: Problem) -> str:
        """Return the prompt for one problem."""
        return self.text.replace(PLACEHOLDER, problem.problem)

    def asked(self, prompt: str) -> str:
        """Return the problem in a prompt of this template; another's prompt is returned whole.

        >>> PromptTemplate("Question: {question} Answer:").asked("Question: 1+1? Answer:")
        '1+1?'
        """
        head, _, tail = self.text.strip().partition(PLACEHOLDER)
        text = prompt.strip()
        if text.startswith(head) and text.endswith(tail):
            return text[len(head) : len(text) - len(tail)]
        return prompt

    def target(self, problem: Problem) -> str:
        """Return the completion that SFT teaches: reasoning, then the tagged answer.

        The r1_zero prompt ends in `<think>`, so the completion starts inside it; spaces stand as in
        the template's own example.
        """
        if not self.text.rstrip().endswith("<think>"):
            return f" {problem.solution}"
        return f" {problem.solution} </think> <answer> {problem.answer} </answer>"


def load_prompt(path: str, examples: Sequence[Problem] = ()) -> PromptTemplate:
    """Read a template.

    Args:
        path: a file, or the name of one in `prompts/`.
        examples: problems to work in the prompt, each in the form of what follows `{examples}`.

    Raises:
        ConfigError: when the file is missing, does not hold `{question}` exactly once, or asks for
            examples where there are none.
    """
    named = ROOT / "prompts" / f"{path}.prompt"
    file = named if named.is_file() else resolve_path(path)
    if not file.is_file():
        known = ", ".join(sorted(other.stem for other in named.parent.glob("*.prompt")))
        raise ConfigError(f"prompt {path}: {file}: no such file; in prompts/ there are {known}")
    text = file.read_text(encoding="utf-8").removesuffix("\n")
    if text.count(PLACEHOLDER) != 1:
        raise ConfigError(
            f"prompt {file} holds {PLACEHOLDER} {text.count(PLACEHOLDER)} times; it must "
            "stand exactly once, where the problem goes"
        )
    return PromptTemplate(_with_examples(text, examples, str(file)))


def _with_examples(text: str, examples: Sequence[Problem], name: str) -> str:
    """Put worked examples in their place; each looks like the question with its target."""
    head, placeholder, question = text.partition(EXAMPLES)
    if not placeholder:
        return text
    if not examples:
        raise ConfigError(
            f"prompt {name} wants worked examples: name it in evaluation.prompts, and use another "
            "for data.prompt"
        )
    one = PromptTemplate(question)
    worked = [f"{one.render(example)}{one.target(example)}\n" for example in examples]
    return head + "".join(worked) + question

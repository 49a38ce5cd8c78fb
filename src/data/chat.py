"""Prompts as turns of a chat (`data.chat`): through the template that a chat model brings.

A prompt template is taken apart: what stands before a line `User: {question}` is the system turn,
the line (or the whole template, where it has none) is the user's, and an open `<think>` at its end
begins the assistant's. What comes back is a prompt template again, with `{question}` in its turn.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from src.config.loading import ConfigError
from src.config.schema import Config
from src.data.prompts import PLACEHOLDER, PromptTemplate, load_prompt
from utils.data.problem import Problem

LOGGER = logging.getLogger(__name__)
_OPEN, _USER, _ASSISTANT = "<think>", "User: ", "Assistant:"
_ANSWERED = "an answer"
# Base models end documents with these, so they tell nothing of a model that also ends turns so.
_ENDS_OF_DOCUMENTS = ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>")
# Some templates state today's date, and a yardstick must be the same tomorrow.
_DATE = datetime.date(2024, 7, 26)


@dataclass(frozen=True, slots=True)
class Turns:
    """A prompt template in parts; `opening` is what the assistant's turn begins with."""

    system: str
    user: str
    opening: str


def stage_prompt(
    config: Config,
    tokenizer: Any,
    name: str | None = None,
    examples: Sequence[Problem] = (),
) -> PromptTemplate:
    """Load a prompt as a model is asked with it: as written, or as turns of a chat.

    Args:
        tokenizer: as `load_tokenizer` returns it.
        name: None for `data.prompt`.
        examples: as of `load_prompt`.

    Raises:
        ConfigError: as `load_prompt`, and when the chat template does not keep the question.
    """
    template = load_prompt(name or config.data.prompt, examples)
    return chat_prompt(template, tokenizer) if chats(config, tokenizer) else template


def chats(config: Config, tokenizer: Any) -> bool:
    """Tell whether prompts are turns of a chat.

    Args:
        tokenizer: as `load_tokenizer` returns it: where they are, its end of text ends a turn.
    """
    if config.data.chat != "auto":
        return config.data.chat == "on"
    has_template = bool(getattr(tokenizer, "chat_template", None))
    return has_template and _is_chat_model(tokenizer, [tokenizer.eos_token_id])


def end_turns(tokenizer: Any, config: Config, ends: Sequence[int]) -> None:
    """Make the end of a turn a tokenizer's end of text, where prompts are turns of a chat.

    `auto` is on for a chat model: one that stops at a token which ends a turn and no document. A
    base model may bring a template too (Qwen2.5-Math does), and one that ends both alike (Mistral,
    OLMo-2) cannot be told from its base: those are asked as the prompt is written.

    Args:
        ends: tokens at which the model stops by its own configuration.

    Raises:
        ConfigError: it is to chat and has no template, or one without an end of a turn.
    """
    chat = config.data.chat
    if chat == "off":
        return
    if not getattr(tokenizer, "chat_template", None):
        if chat == "on":
            raise ConfigError(
                f"data.chat: on, and the tokenizer of {tokenizer.name_or_path} has no chat "
                "template; use data.chat=off, a chat model, or put its chat_template.jinja beside "
                "the tokenizer"
            )
        return
    if chat == "auto" and not _is_chat_model(tokenizer, ends):
        LOGGER.info(
            "data.chat: auto: %s has a chat template, and does not stop at the end of a turn as "
            "a chat model does; prompts stay as written, --set data.chat=on asks in turns",
            tokenizer.name_or_path,
        )
        return
    end = turn_end(tokenizer)
    if end is None:
        raise ConfigError(
            f"data.chat: the chat template of {tokenizer.name_or_path} ends an answer with no "
            "special token, so nothing can stop; use data.chat=off"
        )
    LOGGER.info("data.chat: prompts are turns of a chat, which %s ends", end)
    tokenizer.eos_token = end


def turn_end(tokenizer: Any) -> str | None:
    """Return the special token that ends an answer under the tokenizer's chat template."""
    asked = [
        {"role": "user", "content": "a question"},
        {"role": "assistant", "content": _ANSWERED},
    ]
    tail = _rendered(tokenizer, asked, prompts=False).rpartition(_ANSWERED)[2]
    found = [token for token in _special_tokens(tokenizer) if token in tail]
    return min(found, key=lambda token: (tail.index(token), -len(token)), default=None)


def turns_of(text: str) -> Turns:
    r"""Take a prompt template apart.

    >>> turns_of("Think first.\nUser: {question}\nAssistant: <think>")
    Turns(system='Think first.', user='{question}', opening='<think>')
    >>> turns_of("Question: {question} Answer:")
    Turns(system='', user='Question: {question} Answer:', opening='')
    """
    head, _, tail = text.partition(PLACEHOLDER)
    tail = tail.rstrip()
    opening = _OPEN if tail.endswith(_OPEN) else ""
    tail = tail.removesuffix(opening).rstrip()
    system, label, begun = head.rpartition(_USER)
    if not label or (system and not system.endswith("\n")):
        return Turns("", f"{head}{PLACEHOLDER}{tail}".strip(), opening)
    tail = tail.removesuffix(_ASSISTANT).rstrip()
    return Turns(system.strip(), f"{begun}{PLACEHOLDER}{tail}".strip(), opening)


def chat_prompt(template: PromptTemplate, tokenizer: Any) -> PromptTemplate:
    """Render a prompt template as turns; one that names the tokenizer's special tokens is kept.

    Raises:
        ConfigError: when the chat template drops or doubles the question.
    """
    if any(token in template.text for token in _special_tokens(tokenizer)):
        return template
    turns = turns_of(template.text)
    text = _asked(turns, tokenizer)
    if not text.rstrip().endswith(turns.opening):  # some templates open it themselves
        text += turns.opening
    if text.count(PLACEHOLDER) != 1:
        raise ConfigError(
            f"data.chat: the chat template of {tokenizer.name_or_path} gives back the user's turn "
            f"{text.count(PLACEHOLDER)} times, expected once; use data.chat=off"
        )
    return PromptTemplate(text)


def _asked(turns: Turns, tokenizer: Any) -> str:
    """Render the turns; a template without a system turn gets it at the head of the user's."""
    user = {"role": "user", "content": turns.user}
    if not turns.system:
        return _rendered(tokenizer, [user])
    try:
        text = _rendered(tokenizer, [{"role": "system", "content": turns.system}, user])
    except TemplateError:  # Gemma's: System role not supported
        text = ""
    if turns.system in text:
        return text
    return _rendered(tokenizer, [user | {"content": f"{turns.system}\n\n{turns.user}"}])


def _rendered(tokenizer: Any, messages: list[dict[str, str]], *, prompts: bool = True) -> str:
    """Apply the chat template, on a day that is always the same."""
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=prompts, strftime_now=_DATE.strftime
    )


def _is_chat_model(tokenizer: Any, ends: Sequence[int]) -> bool:
    end = turn_end(tokenizer)
    if end is None or end in _ENDS_OF_DOCUMENTS:
        return False
    return tokenizer.convert_tokens_to_ids(end) in ends


def _special_tokens(tokenizer: Any) -> set[str]:
    """Return the texts of special tokens, but for the tags of an answer."""
    added = tokenizer.added_tokens_decoder.values()
    named = {token.content for token in added if token.special} | {*tokenizer.all_special_tokens}
    return {token for token in named if token.strip("</>") not in ("think", "answer")}

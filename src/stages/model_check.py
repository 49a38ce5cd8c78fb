"""Whether a model can start with a configuration, said before a process or an engine does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import hf_hub_download
from transformers import CONFIG_MAPPING

from src.config.loading import ConfigError
from src.config.schema import Config
from src.data.chat import stage_prompt
from src.data.prompts import PLACEHOLDER
from src.data.token_ids import prompt_ids
from src.output.lines import IN_LOG
from src.run.processes import is_main_process
from src.training.model_files import (
    check_weights,
    context_tokens,
    embedding_rows,
    read_model_config,
)
from src.training.policy import load_tokenizer

LOGGER = logging.getLogger(__name__)


def check_model(model: str, config: Config) -> None:
    """Check context, tokenizer and weights of a model.

    Args:
        model: as `resolve_model` returns it.

    Raises:
        ConfigError: naming what does not fit, and the setting or the file to change.
    """
    local = Path(model).is_dir()
    folder = Path(model) if local else _hub_folder(model)
    shape = read_model_config(folder)
    _check_type(model, shape, config)
    _check_context(model, context_tokens(shape), config)
    _check_division(model, shape.get("text_config") or shape, config.engine.tensor_parallel)
    try:
        tokenizer = load_tokenizer(model, config)
    except (OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"model.path: {model}: its tokenizer cannot be read ({type(error).__name__}: {reason})"
            "; copy the tokenizer's files again"
        ) from None
    rows = embedding_rows(folder) or (shape.get("text_config") or shape).get("vocab_size")
    largest = max(tokenizer.get_vocab().values())
    if rows is not None and largest >= rows:
        raise ConfigError(
            f"model.path: {model}: the tokenizer knows tokens up to {largest:,}, and the weights "
            f"have vectors for {rows:,}; the two are not of one model: copy the tokenizer's files "
            "from where the weights come from"
        )
    text = stage_prompt(config, tokenizer).text.replace(PLACEHOLDER, "")
    _check_prompt(len(prompt_ids(tokenizer, [text])[0]), config)
    if local and is_main_process():
        LOGGER.info("model: reading the weights of %s once, for NaN", model, extra=IN_LOG)
        check_weights(folder)


def _check_type(model: str, shape: dict[str, Any], config: Config) -> None:
    """Refuse a model that transformers cannot build, before anything tries to."""
    kind = shape.get("model_type")
    if kind in CONFIG_MAPPING or config.model.trust_remote_code:
        return
    if "AutoConfig" in (shape.get("auto_map") or {}):
        raise ConfigError(
            f"model.path: {model}: a model of type {kind} brings code of its own, and none is run "
            "unasked; read it, then --set model.trust_remote_code=true"
        )
    raise ConfigError(
        f"model.path: {model}: transformers {transformers.__version__} knows no model of type "
        f"{kind}; use another model, or a transformers that knows it"
    )


def _hub_folder(model: str) -> Path:
    """Return where the hub's client keeps a model's configuration; fetches it if need be."""
    try:
        return Path(hf_hub_download(model, "config.json")).parent
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"model.path: {model}: neither a folder here nor to be had from the hub "
            f"({type(error).__name__}: {reason}); check the name and the connection, or give a "
            "folder"
        ) from None


def _check_context(model: str, longest: int | None, config: Config) -> None:
    wanted = config.engine.max_model_tokens
    if longest is not None and wanted > longest:
        raise ConfigError(
            f"engine.max_model_tokens: {wanted} is more than the {longest} tokens of context that "
            f"{model} has; use --set engine.max_model_tokens={longest} (and lower "
            "sampling.max_completion_tokens if it does not fit)"
        )


def _check_division(model: str, shape: Mapping[str, Any], size: int) -> None:
    """Refuse a number of GPUs over which the engine cannot deal out a model's layers."""
    if size == 1:
        return
    heads, inside = shape["num_attention_heads"], shape.get("intermediate_size") or 0
    shared = shape.get("num_key_value_heads") or heads
    works = [
        number
        for number in range(1, heads + 1)
        if not heads % number and not inside % number and not (shared % number and number % shared)
    ]
    if size not in works:
        raise ConfigError(
            f"engine.tensor_parallel: {size} GPUs cannot share out the {heads} attention heads, "
            f"{shared} key-value heads and {inside:,} columns of an MLP of {model}; use one of "
            f"{', '.join(map(str, works))}"
        )


def _check_prompt(prompt_tokens: int, config: Config) -> None:
    room, new = config.engine.max_model_tokens, config.sampling.max_completion_tokens
    if prompt_tokens + new >= room:
        raise ConfigError(
            f"engine.max_model_tokens: {room} cannot hold the prompt {config.data.prompt} "
            f"({prompt_tokens} tokens before any problem) and a completion of "
            f"sampling.max_completion_tokens = {new}; raise the one or lower the other"
        )

"""Give a run's model away: a folder as the hub keeps one, and, only if asked for, an upload.

    python -m src.report.publish results/tiny --repo user/name            # the folder alone
    python -m src.report.publish results/tiny --repo user/name --push     # and the upload

The folder holds the checkpoint, its tokenizer, README.md (the model card), prompt.txt,
manifest.json and report.json. Nothing leaves the machine without --push (or hub.push) and a token.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import HFValidationError, validate_repo_id

from src.config.loading import ROOT, ConfigError, load_config
from src.config.schema import Config
from src.data.chat import stage_prompt
from src.data.token_ids import prompt_ids
from src.output.lines import log_to_terminal, shown_path
from src.report.model_card import licence_of, model_card
from src.report.report import build_report, read_outcomes, refuse_mixtures
from src.run.directory import TRAINING_STAGES, reported_checkpoint
from src.run.file_list import DESCRIPTION
from src.run.files import read_json, write_text_atomic
from src.run.provenance import MANIFEST
from src.training.checkpoints import verify_checkpoint
from src.training.policy import load_tokenizer

LOGGER = logging.getLogger(__name__)
Record = dict[str, Any]
# Of use to this project's own checks alone.
_LEFT_OUT = (DESCRIPTION, "probe.json", "training_state.pt", MANIFEST)


def main(arguments: list[str] | None = None) -> int:
    """Publish the run that the command line names; return the exit code."""
    given = _parse(arguments)
    log_to_terminal()
    try:
        folder = prepare(given.run, given.repo, licence=given.licence, output=given.output)
        if given.push:
            push(folder, given.repo, public=given.public)
        else:
            LOGGER.info("nothing was sent; --push sends the folder to %s", given.repo)
    except ValueError as error:
        LOGGER.error("%s", error)
        return 2
    return 0


def publish(config: Config, run_folder: Path) -> None:
    """Write the folder of a finished run and send it, as `hub` in its configuration says.

    Raises:
        ConfigError: when something is missing, a token too.
    """
    repo = config.hub.repo
    assert repo is not None
    folder = prepare(run_folder, repo, licence=config.hub.licence)
    if config.hub.push:
        push(folder, repo, public=config.hub.public)


def prepare(
    run_folder: Path, repo: str, *, licence: str | None = None, output: Path | None = None
) -> Path:
    """Write the folder of the last training stage's reported checkpoint; return its path.

    Args:
        licence: of the weights; by default the base model's.
        output: the folder, replaced; `<run>/hub` by default.

    Raises:
        ConfigError: when no training stage has finished, or its checkpoint is not there.
        ValueError: when no stage has finished.
    """
    check_name(repo)
    outcomes = read_outcomes(run_folder)
    refuse_mixtures(run_folder, outcomes)
    stage, checkpoint = _reported(run_folder, outcomes)
    verify_checkpoint(checkpoint)
    config = load_config([run_folder / stage / "config.yaml"])
    named = config.hub.model_copy(update={"licence": licence or config.hub.licence})
    config = config.model_copy(update={"hub": named})
    licence_of(config)
    report = build_report(run_folder, outcomes)
    tokenizer = load_tokenizer(str(checkpoint), config)
    prompt = stage_prompt(config, tokenizer)
    opened = tokenizer([prompt.text])["input_ids"] == prompt_ids(tokenizer, [prompt.text])
    card = model_card(repo, stage, config, prompt, report, outcomes, opened=opened)
    folder = output or run_folder / "hub"
    if folder.exists():
        _refuse_other(folder)
        shutil.rmtree(folder)
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    write_text_atomic(folder / "prompt.txt", prompt.text)
    made_in = Path(outcomes[stage]["checkpoint"].partition(f"/{stage}/")[0])
    for name, record in (
        (MANIFEST, read_json(run_folder / stage / MANIFEST)),
        ("report.json", report),
    ):
        write_text_atomic(folder / name, _without_places(json.dumps(record, indent=2), made_in))
    write_text_atomic(folder / "README.md", card)
    LOGGER.info(
        "%s: model, tokenizer and card of %s, %s", shown_path(folder), stage, checkpoint.name
    )
    return folder


def push(folder: Path, repo: str, *, public: bool = False, api: HfApi | None = None) -> None:
    """Send the folder to the hub; a repository that is new is private unless `public`.

    Raises:
        ConfigError: without a token, or when the hub refuses or cannot be reached.
    """
    token = get_token()
    if token is None:
        raise ConfigError(
            f"hub.push: no token is set, so nothing was sent; run `hf auth login` or set HF_TOKEN, "
            f"then push {folder} again"
        )
    api = api or HfApi(token=token)
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        sent = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Model and card")
    except (HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"hub.push: {repo} could not be sent ({error}); the folder is whole in {folder}: push "
            "it again"
        ) from error
    LOGGER.info("sent to %s", sent)


def check_name(repo: str) -> None:
    """Refuse what is no repository's name.

    Raises:
        ConfigError: naming it.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"hub.repo: {error}") from None
    if repo.count("/") != 1:
        raise ConfigError(f"hub.repo: {repo}: expected user/name")


def _reported(run_folder: Path, outcomes: Mapping[str, Record]) -> tuple[str, Path]:
    """Return the last finished training stage, and its reported checkpoint in the run's folder."""
    stages = [s for s in outcomes if s in TRAINING_STAGES and outcomes[s].get("checkpoint")]
    if not stages:
        raise ConfigError(
            f"{run_folder}: no training stage has finished, so there is no model; run step 2 or 3"
        )
    stage = stages[-1]
    if outcomes[stage].get("rehearsal"):
        raise ConfigError(
            f"{run_folder}: a rehearsal, whose figures mean nothing; publish a real run"
        )
    checkpoint = reported_checkpoint(run_folder / stage, outcomes[stage])
    if not checkpoint.is_dir():
        raise ConfigError(
            f"{checkpoint}: the reported checkpoint of {stage} is missing; restore it"
        )
    return stage, checkpoint


def _without_places(text: str, made_in: Path) -> str:
    """Take out where project and run lay on this machine, which is nobody's concern."""
    text = text.replace(str(made_in), f"results/{made_in.name}")
    for place in (made_in.parent.parent, ROOT):
        text = text.replace(f'"{place}/', '"')
    return text


def _refuse_other(folder: Path) -> None:
    """Refuse to replace what this module has not written."""
    if any(folder.iterdir()) and not (folder / "prompt.txt").is_file():
        raise ConfigError(f"{folder}: holds other files, which would be lost; name another folder")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a pipeline run, such as results/tiny")
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="name on the hub")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: RUN/hub")
    parser.add_argument("--licence", help="of the weights (default: the base model's)")
    parser.add_argument("--push", action="store_true", help="send the folder; needs a token")
    parser.add_argument("--public", action="store_true", help="a new repository is public")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

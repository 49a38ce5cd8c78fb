"""Put a question to the model that a run has trained, in the prompt it was trained with.

    python -m src.viewing.ask results/tiny 'Compute $12+30-5$.'
    python -m src.viewing.ask results/tiny/step2_sft 'Compute $12+30-5$.' --answer 37 --samples 4

RUN is a run, whose last stage with a model is asked, or one stage. It samples as the run does, by
transformers on this machine's processor; --answer grades what comes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from src.config.loading import ConfigError, load_config, resolve_path
from src.config.schema import Config
from src.data.chat import stage_prompt
from src.data.token_ids import prompt_ids
from src.run.directory import (
    SEARCH_STAGE,
    STAGES,
    read_outcome,
    reported_model,
)
from src.training.policy import load_policy, load_tokenizer, resolve_model
from utils.data.problem import Problem
from utils.drgrpo_grader import grade


def main(arguments: list[str] | None = None) -> int:
    """Print the completions; return 2 where no model is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's folder, or a stage's")
    parser.add_argument("question")
    parser.add_argument("--answer", help="the right one; each completion is graded by it")
    parser.add_argument("--samples", type=int, default=1, help="completions (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    stage = stage_with_model(given.run)
    if stage is None:
        sys.stderr.write(
            f"{given.run}: no stage of a run that has finished is there; name a run's folder, such "
            "as results/tiny, or start with: make quickstart\n"
        )
        return 2
    sys.stderr.write(f"{stage.name} of {stage.parent}\n")
    disable_progress_bar()
    try:
        for text in completions(stage, given.question, given.samples, given.seed):
            sys.stdout.write(f"{text}\n")
            if given.answer is not None:
                found = grade(text, given.answer, problem=given.question)
                reason = f": {found.reason}" if found.reason else ""
                sys.stdout.write(f"--> {found.outcome.replace('_', ' ')}{reason}\n")
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def stage_with_model(place: Path) -> Path | None:
    """Return the folder of a finished stage that has a model: this one, or the last of a run's."""
    folders = [place, *(place / name for name in reversed(STAGES))]
    return next(
        (
            folder
            for folder in map(resolve_path, folders)
            if folder.name in STAGES and folder.name != SEARCH_STAGE
            and read_outcome(folder.parent, folder.name) is not None
        ),
        None,
    )  # fmt: skip


def completions(stage: Path, question: str, samples: int, seed: int) -> Iterator[str]:
    """Yield what a stage's model writes after its prompt with the question."""
    config = load_config([stage / "config.yaml"], ["devices.train=cpu"])
    outcome = read_outcome(stage.parent, stage.name)
    assert outcome is not None
    path = resolve_model(reported_model(stage, outcome))
    tokenizer, model = load_tokenizer(path, config), load_policy(path, config).eval()
    prompt = stage_prompt(config, tokenizer)
    text = prompt.render(Problem(question, "", "", None, "", "asked"))
    ids = torch.tensor(prompt_ids(tokenizer, [text]))
    torch.manual_seed(seed)
    for _ in range(samples):
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            tokenizer=tokenizer,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **_sampling(config),
        )
        yield tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)


def _sampling(config: Config) -> dict[str, object]:
    sampling = config.sampling
    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return {
        "do_sample": sampling.temperature > 0,
        **(drawn if sampling.temperature > 0 else {}),
        "max_new_tokens": sampling.max_completion_tokens,
        "stop_strings": [sampling.stop],
    }


if __name__ == "__main__":
    sys.exit(main())

"""The card of a model that is given away: what it is, its figures, what it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from src.config.loading import ConfigError
from src.config.schema import Config
from src.data.prompts import PromptTemplate
from src.data.summary import describe_data
from src.output.markdown import markdown_table
from src.run.directory import GRPO_STAGE, SEARCH_STAGE
from src.run.terminal import interval, percent

Record = dict[str, Any]
_HEADER = (
    *("stage", "n", "accuracy % [95 %]", "format %", "right answer anywhere %"),
    "over the stage before",
)
# Where a base model's licence is known; another is named by hub.licence.
_LICENCES = {
    "assets/tiny_base": "mit",
    "Qwen/Qwen2.5-Math-1.5B": "apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0",
}
_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
question = "{question}"
prompt = open("prompt.txt").read().replace("{{question}}", question)
inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens={opened})
made = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)
print(tokenizer.decode(made[0], skip_special_tokens=True))
```"""


def licence_of(config: Config) -> str:
    """Return the licence of the weights, which is their base model's unless one is named.

    Raises:
        ConfigError: when it is not known.
    """
    licence = config.hub.licence or _LICENCES.get(config.model.path)
    if licence is None:
        raise ConfigError(
            f"hub.licence: the licence of {config.model.path} is not known here, expected what its "
            "own card says, such as apache-2.0; name it by --licence or hub.licence"
        )
    return licence


def model_card(
    repo: str,
    stage: str,
    config: Config,
    prompt: PromptTemplate,
    report: Record,
    outcomes: Mapping[str, Record],
    *,
    opened: bool,
) -> str:
    """Return the card in Markdown with its header for the hub.

    Args:
        repo: the name on the hub, `user/name`.
        stage: whose checkpoint it is.
        config: that stage's.
        prompt: as the model is asked with it.
        opened: the tokenizer by itself gives a prompt the ids that it was measured with.
        report: what report.json states.

    Raises:
        ConfigError: when the prompt's file is no longer the one that was measured with.
    """
    scored = [entry for entry in report["stages"] if entry["stage"] != SEARCH_STAGE]
    own = next(entry for entry in scored if entry["stage"] == stage)
    header = _header(repo, config, own)
    parts = [
        f"# {repo.rpartition('/')[2]}",
        *_what_it_is(stage, config, outcomes),
        "## Results",
        *_results(scored, report),
        "## Use",
        _USE.format(
            repo=repo,
            tokens=config.sampling.max_completion_tokens,
            question="What is 12 + 30?",
            opened=opened,
        ),
        "## Prompt",
        *_prompt(config, prompt, outcomes[stage]),
        "## Data",
        f"{_sources(config)}. {describe_data(outcomes)}.",
        "## How it was made",
        *_made_by(stage, config, outcomes),
        "## Licence",
        f"Weights: {licence_of(config)}, as their base model `{config.model.path}`. The data sets "
        "have licences of their own.",
    ]
    return f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _header(repo: str, config: Config, own: Record) -> ModelCardData:
    names = _data_sets(config)
    base = config.model.path
    result = EvalResult(
        task_type="text-generation",
        dataset_type=names[-1] if names else config.data.source,
        dataset_name=f"{own['n']:,} test problems ({config.data.source})",
        metric_type="accuracy",
        metric_value=round(100 * own["accuracy"], 1),
    )
    return ModelCardData(
        license=licence_of(config),
        base_model=None if Path(base).exists() or base.startswith("assets/") else base,
        datasets=names or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["math", "reasoning", "grpo" if own["stage"] == GRPO_STAGE else "sft"],
        model_name=repo.rpartition("/")[2],
        eval_results=[result],
    )


def _what_it_is(stage: str, config: Config, outcomes: Mapping[str, Record]) -> Iterator[str]:
    steps = [name for name in outcomes if name != SEARCH_STAGE]
    made = " and then GRPO" if stage == GRPO_STAGE and "step2_sft" in steps else ""
    how = f"supervised fine-tuning{made}" if made or stage != GRPO_STAGE else "GRPO"
    profile = config.run.profile
    yield f"`{config.model.path}` after {how} on problems in mathematics (profile {profile})."
    if profile == "tiny":
        yield (
            "A scale model with 1.7 million parameters on generated problems: it shows that the "
            "machinery works, and is of no use beside that."
        )


def _results(scored: list[Record], report: Record) -> Iterator[str]:
    rows = [
        (
            *(entry["stage"], f"{entry['n']:,}"),
            f"{percent(entry['accuracy'])} {interval(entry['accuracy_ci95'])}",
            *(percent(entry["format_rate"]), percent(entry["accuracy_anywhere"])),
            entry["improvement"]["said"] if entry["improvement"] else "",
        )
        for entry in scored
    ]
    yield markdown_table(_HEADER, rows)
    yield (
        "Accuracy is the share of all test problems answered correctly in the right format, with "
        "Wilson's 95 % interval; stages are compared problem by problem. The intervals cover which "
        "problems were drawn, not what another training seed would give."
    )
    gain = report["whole_gain"]
    if gain:
        yield (
            f"From {gain['from']} to {gain['to']}: {gain['accuracy']['said']}; the right answer, "
            f"whatever the format: {gain['anywhere']['said']}."
        )


def _prompt(config: Config, prompt: PromptTemplate, outcome: Record) -> Iterator[str]:
    if prompt.sha256 != outcome["prompt_sha256"]:
        raise ConfigError(
            f"data.prompt: {config.data.prompt} is no longer the prompt that the run was measured "
            f"with (sha256 {outcome['prompt_sha256'][:12]}); restore it"
        )
    sampling = config.sampling
    yield f"```text\n{prompt.text}\n```"
    yield (
        f"In `prompt.txt`, with `{{question}}` for the problem. Measured at temperature "
        f"{sampling.temperature:g}, top-p {sampling.top_p:g}, at most "
        f"{sampling.max_completion_tokens:,} tokens; a completion ends at `{sampling.stop}`."
    )


def _data_sets(config: Config) -> list[str]:
    """Return the hub's names of the data sets that were read."""
    data = config.data
    if data.source in ("hub", "numina"):
        return [*([data.numina_dataset] if data.source == "numina" else []), data.hub_dataset]
    files = [file for file in (data.train_file, data.test_file) if file and file.startswith("hub:")]
    return list(dict.fromkeys(file.split(":")[1].split("@")[0] for file in files))


def _sources(config: Config) -> str:
    data = config.data
    if data.source == "synthetic":
        return "Problems that the project generates"
    if data.source == "files":
        return f"Trained on `{data.train_file}`, tested on `{data.test_file}`"
    return f"From the hub: {', '.join(_data_sets(config))}"


def _made_by(stage: str, config: Config, outcomes: Mapping[str, Record]) -> Iterator[str]:
    outcome = outcomes[stage]
    lines = [
        f"- seed {config.run.seed}, commit {outcome['commit'][:10]}, {outcome['hardware']}",
        f"- checkpoint `{Path(outcome['checkpoint']).name}` of {stage}, chosen on validation",
    ]
    if stage == GRPO_STAGE:
        grpo = config.grpo
        lines.append(
            f"- GRPO: {grpo.steps} steps of {grpo.prompts_per_step} x {grpo.group_size} "
            f"completions, learning rate {grpo.learning_rate:g}, recipe {grpo.recipe}"
        )
    minutes = sum(item["wall_s"] for item in outcomes.values()) / 60
    lines.append(f"- all stages took {minutes:.1f} minutes")
    yield "\n".join(lines)
    yield "`manifest.json` names versions, data and hashes; `report.json` holds every figure above."

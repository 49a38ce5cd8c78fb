"""The one typed configuration that every stage reads.

Each field's docstring is its documentation and gives the unit. Numbers that follow from others are
properties, never configured. No torch in here: `--help`, `--dry-run` and config errors answer at
once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, field_validator, model_validator

from src.config.benchmarks import BenchmarkConfig
from src.config.engine import DeviceConfig, EngineConfig
from src.config.grpo import GrpoConfig
from src.config.training import (
    AdapterSettings,
    Choices,
    ColumnNames,
    Positive,
    SearchConfig,
    Section,
    SftDataConfig,
    Switch,
    TrainConfig,
)

# Files made from it have longer names, and file systems take 255 bytes.
_LONGEST_NAME = 100


class Rehearsal(Section):
    factor: Positive
    """Rows and batches are these many times smaller than in the real run."""
    patience: Positive
    """`train.patience` of the real run; scores that mean nothing do not end a rehearsal."""
    spare_rows: int = Field(default=0, ge=0)
    """Training problems beyond the schedule's, for those that the small context leaves out."""


class RunConfig(Section):
    profile: str = "full"
    """Name of the profile, shown in every report."""
    name: str = "full"
    """Folder under `output_root` that the stages of one pipeline run share: one name, no path."""
    output_root: str = "results"
    """Folder for all runs, relative to the repository root."""
    seed: int = 17
    """Seed of data order, sampling, search and initialisation."""
    earlier: str | None = None
    """Run (its `run.name`) whose steps stand in for earlier ones that this run does not have."""
    rehearsal: Rehearsal | None = None
    """What a rehearsal (`run_pipeline.py --rehearse`) changed; None for a run that counts."""

    @field_validator("name", "earlier")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        """Refuse what is no folder's name below `output_root`, or reads as an option."""
        if name is None:
            return None
        plain = name.isprintable() and name == name.strip() and not set(name) & set("/\\")
        if not plain or not name or name[0] in "-." or len(name.encode()) > _LONGEST_NAME:
            raise ValueError(
                "a run's name is one folder's: no / or \\, no . or - in front, no control "
                f"characters, at most {_LONGEST_NAME} bytes; use run.output_root for another place"
            )
        return name


class ModelConfig(Section):
    path: str = "Qwen/Qwen2.5-Math-1.5B"
    """Base model: a folder relative to the repository root, or a hub id."""
    parameters: Positive = 1_543_714_304
    """Parameter count for memory estimates when `path` is a hub id (a local folder is measured)."""
    hidden_size: Positive = 1536
    """Hidden width for memory estimates when `path` is a hub id."""
    layers: Positive = 28
    """Number of layers for memory estimates when `path` is a hub id."""
    intermediate_size: Positive = 8960
    """Width inside an MLP, for memory estimates when `path` is a hub id."""
    query_width: Positive = 1536
    """Width of the queries of all heads, for memory estimates when `path` is a hub id."""
    key_width: Positive = 256
    """Width of the keys of all key-value heads, for estimates when `path` is a hub id."""
    vocabulary: Positive = 151_936
    """Entries of the output layer, for memory estimates when `path` is a hub id."""
    tied_embeddings: bool = True
    """Whether the output layer is the embedding, for memory estimates when `path` is a hub id."""
    weight_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the trained weights; bfloat16 halves them and rounds small updates away."""
    trust_remote_code: bool = False
    """Run model code that a hub repository ships."""


_MATH_500 = "HuggingFaceH4/MATH-500"


class DataConfig(Section):
    source: Literal["files", "hub", "numina", "synthetic"] = "hub"
    """`hub`: MATH by subject; `numina`: NuminaMath-CoT; `files`: local; `synthetic`: generated."""
    train_file: str | None = None
    """Training problems (`source: files`): JSON, JSON lines, CSV or Parquet, a folder of them, or
    `hub:NAME[:CONFIGURATION[:SPLIT]][@REVISION]`."""
    test_file: str | None = None
    """Test problems (`source: files`), named as those of training."""
    columns: ColumnNames = ColumnNames()
    """Names of the columns in both, where they are not recognised: docs/data.md."""
    test_columns: ColumnNames | None = None
    """Names of the test problems' columns; None for the same."""
    test_set: Literal["all", "math500"] = "all"
    """Test problems: all, or MATH-500 (rows marked `in_math500`; from the hub its own data set)."""
    hub_dataset: str = "EleutherAI/hendrycks_math"
    """Hub id of MATH; one configuration per subject."""
    numina_dataset: str = "AI-MO/NuminaMath-CoT"
    """Hub id of the alternative training source; the test split stays MATH's."""
    subjects: list[str] = [
        "algebra",
        "counting_and_probability",
        "geometry",
        "intermediate_algebra",
        "number_theory",
        "prealgebra",
        "precalculus",
    ]
    """MATH subjects to load from the hub."""
    seed: int | None = None
    """Seed of the splits and of generated problems; None for `run.seed`."""
    prompt: str = "prompts/rl_zero.prompt"
    """Prompt template with one `{question}`."""
    chat: Switch = "auto"
    """Ask in turns, by the tokenizer's chat template; `auto`: of a chat model, one that stops at a
    token which ends turns alone: docs/models.md."""
    remove_duplicates: Literal["exact", "numbers", "near"] = "exact"
    """Leave out of training what repeats a test problem: to the letter (case and white space
    folded; always), but for its numbers, or nearly (8-token Jaccard of 0.6)."""
    train_rows: Positive | None = None
    """Training problems to use; None for all that remain after validation."""
    validation_rows: Positive = 500
    """Problems held out of the training file for every choice that is made."""
    test_rows: Positive | None = None
    """Test problems to use; None for all."""

    def hub_places(self, split: str) -> list[str]:
        """Return the hub's data sets that the `train` or `test` problems come from, by subject.

        >>> DataConfig(test_set="math500").hub_places("test")
        ['HuggingFaceH4/MATH-500']
        """
        if split == "train" and self.source == "numina":
            return [self.numina_dataset]
        if split == "test" and self.test_set == "math500":
            return [_MATH_500]
        return [f"{self.hub_dataset}:{subject}" for subject in self.subjects]


class SamplingConfig(Section):
    temperature: float = Field(default=1.0, ge=0)
    """Softmax temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that is sampled from, the likeliest tokens first; 1 for all."""
    max_completion_tokens: Positive = 1024
    """Longest completion, in tokens."""
    stop: str = "</answer>"
    """Text that ends a completion and is kept in it."""
    samples: Positive = 1
    """Completions a problem in the test evaluation; above 1, pass@k is reported too."""


class EvaluationConfig(BenchmarkConfig):
    prompts: list[str] = []
    """Further prompts to score beside `data.prompt`: names in prompts/, or files."""
    greedy: bool = False
    """Score greedily too, beside the sampled completions."""
    pass_at: list[Positive] = []
    """k of pass@k and maj@k; empty for 1, 2, 4, ... up to sampling.samples."""
    shots: Positive = 4
    """Worked training problems in a prompt that has `{examples}`."""


class GraderConfig(Section):
    children: Positive = 2
    """Symbolic grader processes that each process may use at once."""


class WandbConfig(Section):
    project: str = "math-grpo"
    """W&B project."""
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online where a key is set, else offline."""
    sample_rows: Positive = 32
    """Completions shown in the sample table."""
    checkpoints: bool = False
    """Send the checkpoint that a stage reports as an artifact, with the run that made it."""


class MetricsConfig(Section):
    tensorboard: bool = False
    """Write event files for TensorBoard beside the JSON lines."""


class HubConfig(Section):
    repo: str | None = None
    """Name on the hub, `user/name`; with one, a run ends in a folder as the hub keeps it."""
    push: bool = False
    """Send that folder to the hub; needs a token."""
    public: bool = False
    """A repository that is new is public."""
    licence: str | None = None
    """Licence of the weights, such as apache-2.0; None for the base model's, where it is known."""


class Config(Section):
    run: RunConfig = RunConfig()
    """Where results go, and the seed."""
    model: ModelConfig = ModelConfig()
    """The base model."""
    data: DataConfig = DataConfig()
    """Problems and prompt."""
    devices: DeviceConfig = DeviceConfig()
    """Which device does what."""
    engine: EngineConfig = EngineConfig()
    """The vLLM engine."""
    sampling: SamplingConfig = SamplingConfig()
    """How completions are drawn in every evaluation and rollout."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What step 0 and evaluate_model.py score besides."""
    sft: SftDataConfig = SftDataConfig()
    """What step 2 trains on."""
    train: TrainConfig = TrainConfig()
    """Supervised fine-tuning."""
    search: SearchConfig = SearchConfig()
    """Hyperparameter search over `train`."""
    grpo: GrpoConfig = GrpoConfig()
    """Reinforcement learning."""
    grader: GraderConfig = GraderConfig()
    """The r1_zero grader."""
    wandb: WandbConfig = WandbConfig()
    """Experiment tracking."""
    metrics: MetricsConfig = MetricsConfig()
    """Where metrics go beside the JSON lines and W&B."""
    hub: HubConfig = HubConfig()
    """What is given away."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Config:
        """Refuse settings that cannot work together; say which and what to change."""
        problems = list(self._combination_problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _combination_problems(self) -> Iterator[str]:
        data = self.data
        yield from self.grpo.problems(processes=1)
        if data.source == "files" and not (data.train_file and data.test_file):
            yield "data.train_file and data.test_file: both are needed with data.source: files"
        yield from self._optimizer_problems()
        yield from self._sleep_problems()
        yield from self._engine_problems()
        if self.hub.push and self.hub.repo is None:
            yield "hub.push: true, and hub.repo names no repository; set hub.repo=user/name"
        yield from self.evaluation.benchmark_problems()
        beyond = [k for k in self.evaluation.pass_at if k > self.sampling.samples]
        if beyond:
            yield (
                f"evaluation.pass_at: {beyond} needs as many samples a problem; raise "
                f"sampling.samples = {self.sampling.samples}"
            )
        if self.sampling.max_completion_tokens >= self.engine.max_model_tokens:
            yield (
                f"engine.max_model_tokens: {self.engine.max_model_tokens} leaves no room for a "
                f"prompt beside sampling.max_completion_tokens = "
                f"{self.sampling.max_completion_tokens}; raise the first or lower the second"
            )

    def _engine_problems(self) -> Iterator[str]:
        size, given = self.engine.tensor_parallel, self.devices.eval
        devices = [given] if isinstance(given, str) else given
        first = self.devices.train if given == "auto" else devices[0]
        if size > 1 and first.startswith("cpu"):
            yield (
                f"engine.tensor_parallel: {size} is for GPUs, and evaluation runs on {first}; use "
                "1, and groups of cores such as devices.eval: [cpu:0-3, cpu:4-7] for an engine each"
            )
        elif given != "auto" and len(devices) % size:
            yield (
                f"engine.tensor_parallel: {size} GPUs an engine do not divide the {len(devices)} "
                f"of devices.eval; name {size} or a multiple of it, or use engine.tensor_parallel=1"
            )

    def _optimizer_problems(self) -> Iterator[str]:
        dtype = self.model.weight_dtype
        for section in ("train", "grpo"):
            settings: AdapterSettings = getattr(self, section)
            yield from settings.adapter_problems(section, self.devices.train)
            name = getattr(self, section).optimizer
            if name == "adamw_bf16_kahan" and dtype != "bfloat16":
                yield (
                    f"{section}.optimizer: {name} makes up for the rounding of bfloat16 weights, "
                    f"but model.weight_dtype is {dtype}; set that to bfloat16, or use adamw"
                )
            elif name == "adamw_bf16_kahan" and settings.adapter != "none":
                yield (
                    f"{section}.optimizer: {name} makes up for the rounding of bfloat16 weights, "
                    f"and the adapter of {section}.adapter = {settings.adapter} is float32; use "
                    "adamw"
                )

    def _sleep_problems(self) -> Iterator[str]:
        device = self.devices.train
        if self.engine.sleep == "on" and device.startswith("cpu"):
            yield f"engine.sleep: on, but vLLM has no sleep on {device} (devices.train); use auto"

    def search_problems(self) -> Iterator[str]:
        """Say what keeps step 1 from comparing trials fairly; other steps do not read `search`."""
        search = self.search
        yield from search.problems()
        rungs = search.rung_examples
        if rungs != sorted(set(rungs)) or rungs[-1] != search.examples:
            yield (
                f"search.rung_examples: {rungs} must rise and end at search.examples = "
                f"{search.examples}"
            )
        sizes = search.space.get("train.batch_size")
        listed = sizes.choices if isinstance(sizes, Choices) else [self.train.batch_size]
        for size in (size for size in listed if isinstance(size, int) and size > 0):
            uneven = [rung for rung in rungs if rung % size]
            if uneven:
                yield (
                    f"search.rung_examples: {uneven} are not multiples of batch size {size}, so "
                    "trials would be compared after unequal data; use multiples"
                )

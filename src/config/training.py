"""The typed settings of supervised fine-tuning and of the search over it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Scalar = int | float | bool | str
Switch = Literal["auto", "on", "off"]
OptimizerName = Literal["adamw", "adamw_8bit", "adamw_bf16_kahan"]
ComputeType = Literal["bfloat16", "float16", "float32"]
CheckpointChoice = Literal["latest_near_highest", "highest"]
AdapterName = Literal["none", "lora", "qlora"]
# Of a training run whose configuration does not say how often.
_EVALUATIONS = 10


class Section(BaseModel):
    """Refuse unknown keys and silent type conversions."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class ColumnNames(Section):
    problem: str | None = None
    """Column that holds the problem; dots lead into nested columns. None: recognised."""
    solution: str | None = None
    """Column that holds the worked solution. None: recognised, where there is one."""
    answer: str | None = None
    """Column that holds the reference answer. None: recognised, else the solution's last box."""


class WeightedFile(Section):
    file: str
    """Rows of problems with solutions, or of {prompt, completion}: a file, a folder, or
    `hub:NAME[:CONFIGURATION[:SPLIT]][@REVISION]`."""
    columns: ColumnNames = ColumnNames()
    """Names of its columns, where they are not recognised."""
    weight: float = Field(default=1.0, gt=0)
    """Copies of each row an epoch: 2 takes every row twice, 0.5 a fixed half of the rows."""


class SftDataConfig(Section):
    source: Literal["solutions", "rejection_sampling"] = "solutions"
    """Train on written solutions, or on the model's own completions that grade as correct."""
    files: list[WeightedFile] = []
    """Training files mixed by weight (`source: solutions`); empty: the training problems' own."""
    keep: Literal["verified", "all"] = "verified"
    """Keep only rows whose own target grades as correct, or all."""
    samples: Positive = 8
    """Completions drawn a problem and round (`source: rejection_sampling`)."""
    max_per_problem: Positive = 4
    """Correct completions kept a problem, distinct texts only."""
    rounds: Positive = 1
    """Rounds of expert iteration: each draws from the policy that the round before trained."""


class AdapterSettings(Section):
    adapter: AdapterName = "none"
    """Train all weights, or a low-rank adapter over frozen ones (LoRA), or over frozen ones kept in
    4 bits (QLoRA, on a GPU). It wants about ten times the learning rate of full training."""
    adapter_rank: Positive = 16
    """Rank of an adapted layer's update."""
    adapter_alpha: Positive = 32
    """The update is scaled by alpha / rank."""
    adapter_targets: Literal["all-linear"] | list[str] = "all-linear"
    """Layers that are adapted: all linear ones but the output layer, or those of these names, such
    as q_proj."""

    def adapter_values(self, section: str) -> dict[str, Scalar | list[str]]:
        """Return the adapter's settings by dotted path; nothing without one."""
        names = [name for name in type(self).model_fields if name.startswith("adapter")]
        found = {f"{section}.{name}": getattr(self, name) for name in names}
        return {} if self.adapter == "none" else found

    def adapter_problems(self, section: str, device: str) -> Iterator[str]:
        """Say what of the adapter's settings cannot be.

        Args:
            section: that the settings stand in.
            device: that is trained on.
        """
        changed = [
            name
            for name, field in type(self).model_fields.items()
            if name.startswith("adapter_") and getattr(self, name) != field.default
        ]
        if self.adapter == "none" and changed:
            yield (
                f"{section}.{changed[0]}: {getattr(self, changed[0])!r} is of no use without an "
                f"adapter; set {section}.adapter to lora or qlora, or leave it out"
            )
        if self.adapter == "qlora" and device.startswith("cpu"):
            yield (
                f"{section}.adapter: qlora keeps the frozen weights in 4 bits, which is for CUDA, "
                f"and devices.train is {device}; use lora"
            )
        if not self.adapter_targets:
            yield f"{section}.adapter_targets: no layer is named; name some, or use all-linear"


class TrainConfig(AdapterSettings):
    adapter_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of an adapter's inputs dropped in training. GRPO has none: the engine samples without
    it, so the ratio of probabilities would measure it."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak learning rate."""
    batch_size: Positive = 64
    """Sequences an optimizer step, over all micro-batches."""
    micro_batch_size: Positive = 8
    """Sequences of `max_tokens` that a forward and backward pass has room for. Shorter ones are
    packed into that room, more of them."""
    epochs: Positive = 2
    """Passes over the training examples."""
    optimizer: OptimizerName = "adamw"
    """AdamW with moments in the weights' type, in 8 bits, or for bfloat16 weights with a bfloat16
    remainder of what rounding loses (Kahan summation): 8, 2 or 6 bytes a parameter."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled weight decay."""
    decay_all: bool = False
    """Decay norms, biases and embeddings too, not matrices alone."""
    adam_beta2: Share = 0.999
    """AdamW's second-moment decay."""
    warmup_share: Share = 0.05
    """Share of the steps in which the learning rate rises linearly; it then falls linearly to 0."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient clipping threshold (global L2 norm)."""
    max_tokens: Positive = 1536
    """Longest training sequence; longer examples are left out and counted."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass."""
    memory_rehearsal: Switch = "auto"
    """Pass once through the largest micro-batch of the run before its first step, for nothing, so
    that too little memory shows at once; `auto`: on a GPU."""
    attention: Literal["packed", "sdpa"] = "packed"
    """Attention over packed sequences: torch's variable-length kernels, or transformers' masks."""
    compile: bool = False
    """Compile the model with torch.compile: minutes at the start, faster steps."""
    rank_timeout_s: Positive = 21600
    """Longest that a training process waits for the others, in seconds. The main one samples and
    evaluates while the others wait: allow for the longest of that."""
    compute_dtype: ComputeType = "bfloat16"
    """Type of the matrix products, in SFT and GRPO; weights and optimizer stay float32. float16 has
    three more bits than bfloat16 and scales the loss; a card without bfloat16 gets it."""
    evaluate_every: Positive | None = None
    """Optimizer steps between checkpoints scored on validation; None for a tenth of the run's."""
    validation_rows: Positive = 500
    """Validation problems scored a checkpoint; all where there are fewer."""
    train_subset_rows: int = Field(default=100, ge=0)
    """Training problems scored beside them, the same each time, to see overfitting; 0 for none."""
    loss_rows: int = Field(default=64, ge=0)
    """Validation solutions whose loss and token entropy are measured a checkpoint; 0 for none."""
    patience: Positive = 3
    """Evaluations without improvement before training stops."""
    min_delta: float = Field(default=0.001, ge=0)
    """Smallest gain in validation accuracy that counts as improvement."""
    keep: Positive = 2
    """Evaluated checkpoints kept beside the best."""

    @property
    def micro_batch_tokens(self) -> int:
        """Most tokens of a forward and backward pass."""
        return self.micro_batch_size * self.max_tokens

    def steps(self, examples: int) -> int:
        """Optimizer steps for a number of training examples."""
        return max(1, -(-examples * self.epochs // self.batch_size))

    def checkpoint_steps(self, examples: int) -> list[int]:
        """Return the optimizer steps after which a checkpoint is scored; the last step is one.

        >>> TrainConfig(batch_size=64, epochs=3).checkpoint_steps(7000)
        [33, 66, 99, 132, 165, 198, 231, 264, 297, 329]
        """
        steps, every = self.steps(examples), self.evaluate_every
        if every is None:
            return sorted({-(-steps * part // _EVALUATIONS) for part in range(1, _EVALUATIONS + 1)})
        return sorted({*range(every, steps + 1, every), steps})


SEARCHABLE = (
    "learning_rate", "batch_size", "micro_batch_size", "optimizer", "weight_decay", "decay_all",
    "adam_beta2", "warmup_share", "max_grad_norm", "patience", "min_delta", "adapter_rank",
    "adapter_alpha", "adapter_dropout",
)  # fmt: skip
"""Settings of `train` that a trial reads for itself. All share one model, one set of examples and
one evaluation, so another setting would change nothing, and a value of it be told as the best."""


class FloatRange(Section):
    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Sample the logarithm evenly."""

    @property
    def edges(self) -> list[Scalar]:
        """Values that the setting must be able to take."""
        return [self.low, self.high]

    def holds(self, value: Scalar) -> bool:
        """Tell whether a value lies in the range."""
        return not isinstance(value, bool | str) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


class Choices(Section):
    choices: list[Scalar]
    """Values to choose from."""

    @property
    def edges(self) -> list[Scalar]:
        """Values that the setting must be able to take."""
        return self.choices

    def holds(self, value: Scalar) -> bool:
        """Tell whether a value is one of the choices, of the same type."""
        return any(value == item and type(value) is type(item) for item in self.choices)

    def __str__(self) -> str:
        return f"one of {self.choices}"


class SearchConfig(Section):
    trials: Positive = 20
    """Trials of the whole study, those of an interrupted run included."""
    objective: Literal["validation_accuracy", "eval_loss"] = "validation_accuracy"
    """What is optimised: accuracy up, or loss on validation targets down."""
    space: dict[str, FloatRange | Choices] = {
        "train.learning_rate": FloatRange(low=5e-6, high=1e-4, log=True),
        "train.batch_size": Choices(choices=[32, 64, 128, 256]),
        "train.weight_decay": FloatRange(low=0.0, high=0.1),
    }
    """Dotted paths into this configuration and their ranges."""
    examples: Positive = 4096
    """Training examples a full trial sees."""
    rung_examples: list[Positive] = [512, 1024, 2048, 4096]
    """Examples seen at which a trial is scored and may be pruned; equal for every batch size."""
    reduction_factor: Annotated[int, Field(ge=2)] = 2
    """ASHA keeps the best 1/factor at each rung."""
    startup_trials: Positive = 5
    """Random trials before TPE models the space."""
    validation_rows: Positive = 500
    """Validation problems scored at a rung, the same for all trials; all where there are fewer."""
    enqueue: list[dict[str, Scalar]] = []
    """Known-good points tried first: dotted paths of `space` and their values."""
    rescore_top: Positive = 3
    """Best trials scored again on all validation problems before one is chosen."""
    overlap: bool = True
    """Train on while a rung is scored, where trainer and engine have devices of their own."""
    max_failed_trials: int = Field(default=3, ge=0)
    """Trials that may fail (out of memory, NaN) before the study ends with an error."""
    storage: str | None = None
    """Optuna database URL (postgresql://...); None for a journal file in the run folder."""
    shared: bool = False
    """Let any number of step 1 processes that share `output_root` work on one study."""
    heartbeat_s: Positive = 60
    """Seconds between signs of life of a running trial in a database."""

    def pruning_rungs(self) -> list[int]:
        """Return the rungs at which successive halving may prune, in examples.

        It compares trials where they reach its next resource: the first rung times a power of the
        factor. After the last rung nothing is left to save.

        >>> SearchConfig(rung_examples=[512, 1024, 1536, 2048], examples=2048).pruning_rungs()
        [512, 1024]
        """
        found, resource = [], self.rung_examples[0]
        for rung in self.rung_examples[:-1]:
            if rung >= resource:
                found.append(rung)
            while resource <= rung:
                resource *= self.reduction_factor
        return found

    def problems(self) -> Iterator[str]:
        """Say what is wrong with the known-good points and with the storage."""
        if len(self.enqueue) > self.trials:
            yield (
                f"search.enqueue: {len(self.enqueue)} points for search.trials = {self.trials}; "
                "raise the second or leave points out"
            )
        for path, values in self.space.items():
            yield from _space_problems(path, values)
        for number, point in enumerate(self.enqueue):
            for path, value in point.items():
                space = self.space.get(path)
                if space is None:
                    yield (
                        f"search.enqueue[{number}]: {path} = {value!r}: this path is not in "
                        f"search.space, which has {', '.join(self.space)}; add it or leave it out"
                    )
                elif not space.holds(value):
                    yield (
                        f"search.enqueue[{number}]: {path} = {value!r} is outside search.space "
                        f"({space}); change the value or widen the space"
                    )
        parts = urlsplit(self.storage or "")
        if parts.password or "password=" in parts.query:
            yield (
                "search.storage: the URL holds a password, which config.yaml and W&B would show; "
                "leave it out and put it where the driver looks (~/.pgpass for PostgreSQL)"
            )


def _space_problems(path: str, space: FloatRange | Choices) -> Iterator[str]:
    """Say what keeps a trial from taking a value of the search space."""
    section, _, name = path.partition(".")
    if path == "train.adapter":
        yield (
            "search.space: train.adapter: all trials share one loaded model; set it for the "
            "whole study and search train.learning_rate or train.adapter_rank"
        )
    elif section != "train" or name not in SEARCHABLE:
        known = name in TrainConfig.model_fields and section == "train"
        why = "no trial reads it for itself" if known else "no setting of training"
        yield f"search.space: {path}: {why}; search train.{', train.'.join(SEARCHABLE)}"
    else:
        for value in space.edges:
            try:
                TrainConfig.model_validate({name: value})
            except ValidationError as error:
                told = error.errors()[0]["msg"].lower()
                hint = "; list whole numbers under choices" if "integer" in told else ""
                yield f"search.space: {path}: {value!r}: {told}{hint}"
                return

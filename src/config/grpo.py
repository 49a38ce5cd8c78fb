"""The typed settings of reinforcement learning.

A recipe (`config/recipes/`) fills in the fields it names; whatever the configuration itself says
about them wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from src.config.rewards import RewardWeights
from src.config.training import (
    AdapterSettings,
    CheckpointChoice,
    OptimizerName,
    Positive,
    Section,
    Share,
    Switch,
)


class CollapseConfig(Section):
    patience: Positive = 5
    """Steps in a row that show a sign of collapse before training stops."""
    length_share: Share = 0.2
    """Mean completion length as a share of the first steps' below which it has collapsed."""
    entropy_nats: float = Field(default=0.001, ge=0)
    """Token entropy below which nothing is explored any more."""
    grad_norm_factor: float = Field(default=50.0, gt=1)
    """Gradient norm as a multiple of the run's median above which training has diverged."""


class GrpoConfig(AdapterSettings):
    recipe: Literal[
        "grpo", "dr_grpo", "dapo", "reinforce_baseline", "gspo", "cispo", "maxrl", "rft"
    ] = "dapo"
    """Overlay of `config/recipes/` below this configuration's own numbers."""
    init: Literal["sft", "base"] = "sft"
    """Start from step 2's best checkpoint or from the base model."""
    steps: Positive = 200
    """Optimizer steps, `updates_per_batch` of them to a rollout batch."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate, with float32 weights under autocast."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after warm-up: held, or down to 0 at the last step."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Completions a prompt."""
    prompts_per_step: Positive = 32
    """Problems a rollout batch, over all processes."""
    micro_batch_size: Positive = 8
    """Completions a forward and backward pass on one device."""
    min_completion_tokens: int = Field(default=4, ge=0)
    """Tokens of a rollout before the end of text may be sampled; evaluations have no such floor."""
    iterations: Positive = 1
    """Optimizer passes over the same rollouts."""
    updates_per_batch: Positive = 1
    """Optimizer steps that a rollout batch is cut into. All but the first train on what an older
    policy drew: the ratio of their loss corrects for that, within `clip_low` and `clip_high`."""
    dynamic_sampling: bool = False
    """Replace groups whose completions are all right or all wrong by fresh ones (DAPO, eq. 11)."""
    draw_limit: float = Field(default=3.0, ge=1)
    """Groups drawn a step, as a multiple of those needed, before equal groups are taken as well."""
    problem_filter: Literal["none", "pass_rate"] = "none"
    """`pass_rate`: leave out problems the starting model always or never solves."""
    pass_rate_samples: Annotated[int, Field(ge=2)] = 8
    """Completions a problem to measure its pass rate; measured once and cached."""
    order: Literal["shuffled", "level", "pass_rate"] = "shuffled"
    """Problems in random order, or the easy ones first by stated level or measured pass rate."""
    clip_low: float = Field(default=0.2, gt=0)
    """Lower clipping distance of the probability ratio; the loss `cispo` has none."""
    clip_high: float = Field(default=0.2, gt=0)
    """Upper clipping distance of the probability ratio."""
    ratio: Literal["token", "sequence"] = "token"
    """What the probability ratio is of: each token, or the geometric mean of a sequence (GSPO)."""
    kl_beta: float = Field(default=0.0, ge=0)
    """Weight of the KL penalty to the starting policy."""
    importance_correction: Literal[
        "off", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"
    ] = "token_truncate"
    """Correct for the engine's rounding: a ratio above the cap is cut to it, or its tokens are left
    out. A sequence's ratio is a product over its tokens and soon leaves any bounds."""
    importance_cap: float = Field(default=2.0, gt=1)
    """Largest ratio of the policy's to the engine's probability."""
    optimizer: OptimizerName = "adamw"
    """As `train.optimizer`; `adamw_bf16_kahan` wants bfloat16 weights."""
    adam_beta2: Share = 0.95
    """AdamW's second-moment decay."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient clipping threshold."""
    advantage: Literal["group_mean", "max_likelihood", "correct_only"] = "group_mean"
    """A completion's reward less its group's mean; the same over that mean (MaxRL); or 1 for a
    correct completion and 0 for all others, which are then no part of the loss (RFT)."""
    scale_rewards: bool = True
    """Divide `group_mean` advantages by the group's reward standard deviation."""
    loss: Literal["grpo", "dr_grpo", "dapo", "cispo"] = "dapo"
    """Token losses averaged a sequence first (grpo), over all tokens of the step (dapo), or divided
    by the token limit (dr_grpo). cispo: as dapo, of log-probabilities weighted by the cut ratio."""
    rewards: RewardWeights = RewardWeights()
    """Weight of each reward; all are logged. A function of yours: `path/to/file.py:name`."""
    reward_timeout_s: Positive = 60
    """Longest that a reward function of yours may take for a step's completions, in seconds."""
    overlong_share: Share = 0.2
    """Last part of the token limit in which the overlong penalty rises."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass."""
    memory_rehearsal: Switch = "auto"
    """As `train.memory_rehearsal`, with the longest prompt and completions at the limit."""
    mask_truncated: bool = False
    """Leave completions cut by the token limit out of the loss."""
    evaluate_every: Positive = 25
    """Steps between validation scores."""
    validation_rows: Positive = 500
    """Validation problems scored during training; all where there are fewer."""
    save_every: Positive = 25
    """Steps between resumable checkpoints."""
    choose: CheckpointChoice = "latest_near_highest"
    """Which checkpoint goes on to test: the latest of those whose validation accuracy lies at most
    one standard error below the highest, or the highest, the earliest among equals."""
    sample_groups_every: Positive = 10
    """Steps between groups written down to be read."""
    sample_groups: Positive = 2
    """Groups written down each time."""
    collapse: CollapseConfig = CollapseConfig()
    """When to stop a run that has gone wrong."""
    mode: Literal["colocate", "split", "server"] = "colocate"
    """vLLM inside each training process; in a process of its own on `devices.eval` beside one
    training process; or a server on GPUs or a machine of its own."""
    one_step_off: bool = False
    """Draw a step's rollouts while the step before it trains (`mode: split`): by weights one update
    older, for which `importance_correction` corrects."""
    server_url: str = "http://127.0.0.1:8000"
    """Address of `vllm serve` (`mode: server`)."""
    engine_memory_fraction: Share | Literal["auto"] = "auto"
    """Share of a GPU's memory for the colocated engine; `auto`: what it needs of what is left."""
    rank_timeout_s: Positive = 7200
    """Longest that a process waits for the others, in seconds; measuring pass rates counts."""

    @property
    def completions_per_batch(self) -> int:
        """Completions that are drawn together, over all processes."""
        return self.group_size * self.prompts_per_step

    @property
    def completions_per_step(self) -> int:
        """Completions an optimizer step, over all processes."""
        return self.completions_per_batch // self.updates_per_batch

    @property
    def steps_per_batch(self) -> int:
        """Optimizer steps from one drawing of rollouts to the next."""
        return self.iterations * self.updates_per_batch

    @property
    def evaluation_steps(self) -> list[int]:
        """Steps after which validation is scored: before the first, and after the last, too."""
        return sorted({*range(0, self.steps + 1, self.evaluate_every), self.steps})

    @property
    def save_steps(self) -> list[int]:
        """Steps after which the resumable state is saved; the last is one."""
        return sorted({*range(self.save_every, self.steps + 1, self.save_every), self.steps})

    @property
    def needs_pass_rates(self) -> bool:
        """Tell whether the starting model's pass rates are measured first."""
        return "pass_rate" in (self.problem_filter, self.order)

    def accumulation(self, processes: int) -> int:
        """Micro-batches a process and optimizer step, so that completions a step stay the same."""
        return self.completions_per_step // (self.micro_batch_size * processes)

    def problems(self, processes: int) -> Iterator[str]:
        """Say what cannot work together, for a number of processes."""
        cut = self.micro_batch_size * processes * self.updates_per_batch
        if self.completions_per_batch % cut:
            updates = f" x {self.updates_per_batch} updates" if self.updates_per_batch > 1 else ""
            yield (
                f"grpo.micro_batch_size: {self.micro_batch_size} x {processes} process(es)"
                f"{updates} does not divide prompts_per_step x group_size = "
                f"{self.completions_per_batch}; choose a divisor"
            )
        if self.prompts_per_step % processes:
            yield (
                f"grpo.prompts_per_step: {self.prompts_per_step} groups cannot be shared evenly by "
                f"{processes} processes; use a multiple"
            )
        if self.save_every % self.steps_per_batch or self.evaluate_every % self.steps_per_batch:
            yield (
                "grpo.save_every and grpo.evaluate_every: must be multiples of grpo.iterations x "
                f"grpo.updates_per_batch = {self.steps_per_batch}, so that no rollouts are cut in "
                "two"
            )
        yield from self._split_problems(processes)
        yield from self._loss_problems()

    def _loss_problems(self) -> Iterator[str]:
        """Say which parts of a loss do not go together."""
        if self.recipe in ("reinforce_baseline", "rft") and self.steps_per_batch > 1:
            name = "iterations" if self.iterations > 1 else "updates_per_batch"
            yield (
                f"grpo.{name}: {self.recipe} takes one update a batch, as nothing clips the ratio; "
                "use 1 or another recipe"
            )
        if self.ratio == "sequence" and self.loss != "grpo":
            yield (
                f"grpo.ratio: sequence with grpo.loss: {self.loss} would weigh a sequence by its "
                "length; use loss: grpo, or ratio: token"
            )
        penalties = [name for name in ("overlong", "brevity") if getattr(self.rewards, name) > 0]
        if self.advantage == "max_likelihood" and penalties:
            yield (
                f"grpo.rewards.{penalties[0]}: grpo.advantage: max_likelihood divides by a group's "
                "mean reward, which a penalty makes 0 or negative; set its weight to 0"
            )

    def _split_problems(self, processes: int) -> Iterator[str]:
        if self.mode == "split" and processes > 1:
            yield (
                f"grpo.mode: split has one training process and one engine, not {processes} "
                "processes; launch one, or use colocate (an engine in each process) or server"
            )
        if not self.one_step_off:
            return
        if self.mode != "split":
            yield (
                f"grpo.one_step_off: in grpo.mode {self.mode} the engine cannot sample while the "
                "policy trains; use grpo.mode: split, or one_step_off: false"
            )
        if self.steps_per_batch > 1:
            name = "iterations" if self.iterations > 1 else "updates_per_batch"
            yield (
                f"grpo.one_step_off: grpo.{name} is {getattr(self, name)}, so rollouts would be up "
                f"to {2 * self.steps_per_batch - 1} updates old; use {name}: 1, or one_step_off: "
                "false"
            )
        if self.importance_correction == "off":
            yield (
                "grpo.one_step_off: grpo.importance_correction is off, and older weights draw the "
                "rollouts; use token_truncate"
            )

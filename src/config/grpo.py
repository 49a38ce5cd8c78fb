"""The typed settings of reinforcement learning.

A recipe (`config/recipes/`) fills in the fields it names; whatever the configuration itself says
about them wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from src.config.training import (
    AdapterSettings,
    OptimizerName,
    Positive,
    Section,
    Share,
    Switch,
)


class RewardWeights(Section):
    accuracy: float = 1.0
    """The r1_zero grader's verdict, 1 or 0."""
    format: float = 0.0
    """1 for a well-formed completion; with weight 0 it is logged alone."""
    overlong: float = 0.0
    """Soft overlong penalty (DAPO, arXiv:2503.14476, eq. 13): 0 falling to -1 at the limit."""
    brevity: float = 0.0
    """Minus the completion's share of the token limit."""

    def weights(self) -> dict[str, float]:
        """Return name -> weight, in the order in which rewards are computed."""
        return self.model_dump()


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
    recipe: Literal["grpo", "dr_grpo", "dapo", "reinforce_baseline"] = "dapo"
    """Overlay of `config/recipes/` below this configuration's own numbers."""
    init: Literal["sft", "base"] = "sft"
    """Start from step 2's best checkpoint or from the base model."""
    steps: Positive = 200
    """Optimizer steps."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate, with float32 weights under bf16 autocast."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after warm-up: held, or down to 0 at the last step."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Completions a prompt."""
    prompts_per_step: Positive = 32
    """Problems an optimizer step, over all processes."""
    micro_batch_size: Positive = 8
    """Completions a forward and backward pass on one device."""
    min_completion_tokens: int = Field(default=4, ge=0)
    """Tokens of a rollout before the end of text may be sampled; evaluations have no such floor."""
    iterations: Positive = 1
    """Optimizer passes over the same rollouts."""
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
    """Lower clipping distance of the probability ratio."""
    clip_high: float = Field(default=0.2, gt=0)
    """Upper clipping distance of the probability ratio."""
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
    scale_rewards: bool = True
    """Divide a group's advantages by its reward standard deviation."""
    loss: Literal["grpo", "dr_grpo", "dapo"] = "dapo"
    """Token losses averaged a sequence first (grpo), over all tokens of the step (dapo), or divided
    by the token limit (dr_grpo)."""
    rewards: RewardWeights = RewardWeights()
    """Weight of each reward; all are logged."""
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
    def completions_per_step(self) -> int:
        """Completions an optimizer step, over all processes."""
        return self.group_size * self.prompts_per_step

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
        if self.completions_per_step % (self.micro_batch_size * processes):
            yield (
                f"grpo.micro_batch_size: {self.micro_batch_size} x {processes} process(es) does "
                f"not divide prompts_per_step x group_size = {self.completions_per_step}; choose a "
                "divisor"
            )
        if self.prompts_per_step % processes:
            yield (
                f"grpo.prompts_per_step: {self.prompts_per_step} groups cannot be shared evenly by "
                f"{processes} processes; use a multiple"
            )
        if self.save_every % self.iterations or self.evaluate_every % self.iterations:
            yield (
                f"grpo.save_every and grpo.evaluate_every: must be multiples of grpo.iterations = "
                f"{self.iterations}, so that no rollouts are cut in two"
            )
        yield from self._split_problems(processes)
        if self.recipe == "reinforce_baseline" and self.iterations > 1:
            yield (
                "grpo.iterations: reinforce_baseline takes one update a batch, as nothing clips "
                "the ratio; use 1 or another recipe"
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
        if self.iterations > 1:
            yield (
                f"grpo.one_step_off: grpo.iterations is {self.iterations}, so rollouts would be up "
                "to that many updates old; use iterations: 1, or one_step_off: false"
            )
        if self.importance_correction == "off":
            yield (
                "grpo.one_step_off: grpo.importance_correction is off, and older weights draw the "
                "rollouts; use token_truncate"
            )

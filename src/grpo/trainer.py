"""GRPO with TRL's trainer, colocated with a vLLM engine or not, with its silent traps closed.

The only module that imports trl; `trl_names` maps its names to ours. What TRL's trainer does
otherwise, through its `rollout_func` hook and four methods of a subclass:

* Rollouts come from `RolloutSource`: own seeds, dynamic sampling, grading while others are sampled.
  TRL's data loader only sets the pace.
* TRL calls a completion truncated unless it ends in the end-of-text token, so one that ended at
  `</answer>` would count as cut. The token is appended here, masked from the loss because the
  policy did not sample it.
* An unscorable completion is masked from the loss, and none of its rewards is a number.
* Log-probabilities come from packed rows, and those of the policy before its update from the
  training pass itself, whose weights are still the same: one forward pass less than TRL takes.
* Weights reach the engine in one call, after which its layers are compared with the policy's, to
  the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import trl.generation.vllm_generation as trl_vllm
import trl.trainer.utils as trl_utils
from transformers import PrinterCallback
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer
from trl.generation.vllm_client import VLLMClient

from src.config.schema import Config
from src.engine.generator import Generator, RolloutPool
from src.engine.layer_check import LiveTensors, RecordedTensors, Tensors
from src.engine.own_classes import engine_classes
from src.engine.server_engine import BoundedServer, ServerEngine, ServerRolloutPool
from src.engine.server_requests import check_server
from src.engine.sleeping import SleepCycle
from src.engine.swap_verifier import check_synced
from src.engine.vllm_engine import (
    VllmEngine,
    stale_layers,
    swap_weights,
)
from src.grpo.rollout_source import RolloutSource, training_rows
from src.grpo.rollouts import Drawn
from src.grpo.split import SplitRollouts
from src.grpo.trl_names import engine_settings, pace, reward_function, trl_values
from src.objective.advantages import Judged, own_advantages
from src.objective.importance import Agreement, importance_weights
from src.objective.scoring import PackedScorer
from src.run.devices import is_cpu
from src.training.adapters import MergedTensors, has_adapter, lora_config
from src.training.optimization import named_optimizer
from src.training.parallel import gathered, join_processes_on_cpu
from src.training.policy import load_policy
from src.training.throughput import StepClock


class PolicyTrainer(GRPOTrainer):
    """TRL's trainer on rollouts of ours.

    Args:
        settings: the run's configuration.
        split: where rollouts come from in `grpo.mode: split`; TRL then has no engine.
        arguments: TRL's own.
    """

    def __init__(
        self,
        source: RolloutSource,
        settings: Config,
        split: SplitRollouts | None = None,
        **arguments: Any,
    ) -> None:
        self.source = source
        self.split = split
        self.settings = settings
        self.clock = StepClock()
        self.agreement = Agreement()
        self.work = PackedScorer(settings.train.compute_dtype)
        self.drawn: Drawn | None = None
        self.advantages: list[float] = []
        self._loss_inputs: dict[str, Any] | None = None
        self._buffered_inputs: list[dict[str, Any]] | None = None
        self._server: BoundedServer | None = None
        url, timeout_s = settings.grpo.server_url, settings.engine.no_answer_timeout_s
        if settings.grpo.mode == "server":
            check_server(url, timeout_s)
        super().__init__(rollout_func=lambda *_: self._draw_rollouts(), **arguments)
        grpo = settings.grpo
        self.optimizer_cls_and_kwargs = named_optimizer(
            grpo.optimizer, grpo.learning_rate, grpo.adam_beta2
        )
        # TRL would score every position on a device without Triton, those of prompts as well.
        trl_utils._use_triton = lambda _: True
        if grpo.mode == "server":
            # TRL's client lives in the main process alone; every process samples its own share.
            client = getattr(self.vllm_generation, "vllm_client", None)
            self._server = BoundedServer(client or VLLMClient(base_url=url), url, timeout_s)
        # TRL puts an engine that is to sleep to sleep as it builds it.
        sleeps = self.use_vllm and self.args.vllm_enable_sleep_mode
        self._cycle = SleepCycle(self.vllm_generation.llm if sleeps else None)
        if has_adapter(self.model):
            self._train_adapter()
        if self.use_vllm:
            self._sync_in_trl = self.vllm_generation.sync_weights
            self.vllm_generation.sync_weights = self.sync_weights

    def create_accelerator_and_postprocess(self) -> None:
        """Scale the loss in float16 on a CPU too, where accelerate does not."""
        super().create_accelerator_and_postprocess()
        if self.args.fp16 and self.args.device.type == "cpu":
            self.accelerator.native_amp = True
            self.accelerator.scaler = torch.amp.GradScaler("cpu")

    def _train_adapter(self) -> None:
        """Keep the adapter in float32, and the policy's weights out of TRL's hands.

        Over weights in 4 bits TRL casts it to bfloat16, where small updates round away; to sync it
        merges updates into the weights and takes them out again, which changes the weights.
        """
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if self.use_vllm:
            policy = self.accelerator.unwrap_model(self.model)
            self.vllm_generation._iter_named_params = lambda: MergedTensors(policy).named()

    def begin_step(self) -> None:
        """Forget the figures of the step before."""
        self.clock.begin()
        self.agreement = Agreement()
        self.work.forget()
        if self.split is not None:
            self.split.begin_step()

    def engine(self) -> Generator:
        """Return the engine that samples rollouts."""
        if self._server is not None:
            context, device = self.settings.engine.max_model_tokens, self.accelerator.device
            return ServerEngine(self._server, self._tokenizer, context, device)
        return self._colocated()

    def _colocated(self) -> VllmEngine:
        return VllmEngine.around(self.vllm_generation.llm, self._tokenizer)

    @contextmanager
    def engine_awake(self) -> Iterator[None]:
        """Let the engine sample inside the block; where it slept, with weights that come anew."""
        if self._cycle.asleep:
            self.vllm_generation.sync_weights()
        with self._cycle.awake():
            yield

    def _pool(self) -> RolloutPool:
        sampling, floor = self.settings.sampling, self.settings.grpo.min_completion_tokens
        if self._server is not None:
            context = self.settings.engine.max_model_tokens
            return ServerRolloutPool(self._server, self._tokenizer, sampling, context, floor)
        return self._colocated().rollouts(sampling, floor)

    def sync_weights(self) -> None:
        """Give the engine the policy's weights, and prove it.

        Raises:
            StaleWeightsError: naming the layers that stayed as they were.
        """
        if self.split is not None:
            self.split.load(self.state.global_step, self._policy_tensors, self.clock)
            return
        generation = self.vllm_generation
        with self.clock.part("sync"):
            if self._server is not None:
                if self.accelerator.device.type == "cuda":
                    torch.cuda.synchronize()  # TRL reads the weights on streams of its own
                with self._server.answers():
                    self._sync_in_trl()
                gathered([None])  # the main process alone pushes; nobody samples before it has
                return
            self._cycle.wake_weights()
            # TRL's own way calls the engine once a parameter, and fails on layers that vLLM has
            # packed for a CPU. Its iterator gathers what is sharded, one parameter at a time.
            given = generation._iter_named_params()
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                recorded = RecordedTensors()
                swap_weights(generation.llm, recorded.recording(given))
                stale = stale_layers(generation.llm, recorded)
            else:
                swap_weights(generation.llm, given)
                stale = stale_layers(generation.llm, self._expected())
        check_synced(stale)
        self._cycle.weights_proven()

    def _expected(self) -> Tensors:
        """Return what the engine should hold, taken from the policy as it is now."""
        policy = self.accelerator.unwrap_model(self.model)
        if has_adapter(policy):
            return MergedTensors(policy)
        return LiveTensors(self._policy_tensors())

    def _policy_tensors(self) -> Mapping[str, torch.Tensor]:
        policy = self.accelerator.unwrap_model(self.model)
        if has_adapter(policy):  # as a colocated engine gets them: rounded once, to its own type
            return {name: tensor.cpu() for name, tensor in MergedTensors(policy).named()}
        return dict(policy.named_parameters())

    def _draw_rollouts(self) -> dict[str, list[Any]]:
        """Draw this step's groups and return them as TRL wants them."""
        if self.split is not None:
            self.sync_weights()
            done, steps = self.state.global_step, self.state.max_steps
            last = done + self.settings.grpo.steps_per_batch >= steps
            self.drawn = self.split.draw(done, self.clock, last=last)
        else:
            with self.engine_awake():
                self.drawn = self.source.draw(self._pool())
            self.clock.add("generate", self.drawn.generate_s)
            self.clock.add("grade", self.drawn.grade_s)
        with self.clock.part("reward"):
            self.source.reward(self.drawn)
        return training_rows(self.drawn, self._tokenizer.eos_token_id)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Keep the advantages, and take the place of TRL's where the recipe has its own."""
        output, grpo = super()._generate_and_score_completions(inputs), self.settings.grpo
        assert self.drawn is not None
        judged = [
            [Judged(grade, own) for (_, grade), own in zip(g.members, g.rewards, strict=True)]
            for g in self.drawn.groups
        ]
        if (own := own_advantages(judged, grpo)) is not None:
            output["advantages"] = output["advantages"].new_tensor(own)
        if grpo.advantage == "correct_only":  # the others' tokens are no part of the mean either
            mask = output["completion_mask"] * output["tool_mask"]
            tokens = sum(gathered([(mask.sum(1) * (output["advantages"] > 0)).sum().item()]))
            output["num_items_in_batch"] = torch.tensor(tokens, device=mask.device)
        self.advantages = output["advantages"].tolist()
        return output

    def _prepare_inputs(self, generation_batch: list[dict[str, Any]]) -> dict[str, Any]:
        """Cut a step's rollouts into micro-batches in their order, not shuffled as TRL does.

        A step takes all of them whatever their order, and members of a group share their prompt.
        """
        parts = self.args.steps_per_generation
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            whole = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = trl_utils.split_tensor_dict(whole, parts)
        return self._buffered_inputs[self._step % parts]

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """Let the forward pass below see and correct what the loss is made of."""
        self._loss_inputs = dict(inputs)
        try:
            return super()._compute_loss(model, self._loss_inputs)
        finally:
            self._loss_inputs = None

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Score completions (B, C) in packed rows of at most `batch_size` sequences."""
        arguments = (model, input_ids, attention_mask, logits_to_keep, batch_size)
        if self._loss_inputs is None:  # the policy before its update, or the reference policy
            with self.clock.part("logprobs"):
                return (*self._scored(*arguments), None)
        logprobs, entropies = self._scored(*arguments)
        self._correct_importance(self._loss_inputs, logprobs.detach(), entropies)
        return logprobs, entropies, None

    def _scored(
        self,
        model: torch.nn.Module,
        ids: torch.Tensor,
        mask: torch.Tensor,
        columns: int,
        batch_size: int | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        own, counts = self.accelerator.unwrap_model(model), self._loss_inputs is not None
        return self.work.scored(model, own, (ids, mask), columns, batch_size, counts=counts)

    def _correct_importance(
        self, inputs: dict[str, Any], logprobs: torch.Tensor, entropies: torch.Tensor
    ) -> None:
        """Weigh the advantages of a micro-batch by what the engine's sampling differs.

        A weight on the loss of a token is the same as one on its advantage, as it is not negative.
        """
        grpo = self.settings.grpo
        mask = inputs["completion_mask"] * inputs["tool_mask"]  # (B, C)
        weights, agreement = importance_weights(
            inputs.get("old_per_token_logps", logprobs),
            inputs["sampling_per_token_logps"],
            mask,
            grpo.importance_correction,
            grpo.importance_cap,
        )
        inputs["advantages"] = inputs["advantages"].unsqueeze(1) * weights  # (B, C)
        agreement.entropy = (entropies * mask).sum().item()
        if "old_per_token_logps" in inputs:
            agreement.add_update(logprobs, inputs["old_per_token_logps"], mask)
        self.agreement += agreement
        if self.split is None or self.split.lag == 0:  # else it is the policy that has moved on
            agreement.check(self.settings.engine.swap_tolerance)


def build_trainer(
    model: str,
    tokenizer: PreTrainedTokenizerBase,
    source: RolloutSource,
    config: Config,
    output_folder: Path,
    split: SplitRollouts | None = None,
) -> PolicyTrainer:
    """Build TRL's trainer around the policy, and around a colocated engine without `split`."""
    policy = load_policy(model, config, config.train.attention, config.grpo)
    policy.config.name_or_path = model
    with engine_settings(trl_vllm, config), engine_classes(type(policy.config)):
        trainer = PolicyTrainer(
            source,
            config,
            split,
            model=policy,
            reward_funcs=[reward_function(name) for name in config.grpo.rewards.weights()],
            args=trl_arguments(config, output_folder),
            train_dataset=pace(config),
            processing_class=tokenizer,
            peft_config=lora_config(config.grpo),
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trl_arguments(config: Config, output_folder: Path, **more: Any) -> GRPOConfig:
    """Return our configuration as TRL's, with further arguments of TRL's own."""
    if is_cpu(config.devices.train):
        join_processes_on_cpu(config.grpo.rank_timeout_s)
    arguments = GRPOConfig(**trl_values(config, output_folder) | more)
    if is_cpu(config.devices.train):
        # accelerate numbers the processes of a CPU, and torch cannot load tensors to `cpu:1`.
        vars(arguments)["_setup_devices"] = torch.device("cpu")
    return arguments

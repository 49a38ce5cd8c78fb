"""What src/grpo/trainer.py relies on inside TRL: a release that changes it fails here, by name."""

from __future__ import annotations

import inspect

import pytest
import trl
import trl.generation.vllm_generation as trl_vllm
import trl.trainer.utils as trl_utils
from trl import GRPOTrainer

METHODS = {
    "_generate_and_score_completions": ["self", "inputs"],
    "_prepare_inputs": ["self", "generation_batch"],
    "_compute_loss": ["self", "model", "inputs"],
    "_get_per_token_logps_and_entropies": [
        *("self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"),
    ],
}


def test_the_version_that_was_read():
    assert trl.__version__.startswith("1.16.")


@pytest.mark.parametrize("name", METHODS)
def test_overridden_methods_have_the_arguments_that_were_read(name):
    parameters = list(inspect.signature(getattr(GRPOTrainer, name)).parameters)
    assert parameters[: len(METHODS[name])] == METHODS[name]


def test_the_loss_reads_what_is_put_before_it():
    """Weights go onto the advantages after the forward pass, so the loss must read them later."""
    source = inspect.getsource(GRPOTrainer._compute_loss)
    forward = source.index("_get_per_token_logps_and_entropies(")
    assert forward < source.index('advantages = inputs["advantages"]')
    assert 'mask = completion_mask if "tool_mask" not in inputs' in source
    assert 'inputs.get("old_per_token_logps")' in source


def test_the_rollout_hook_takes_masks_and_scores():
    source = inspect.getsource(GRPOTrainer._generate)
    assert "output = self.rollout_func(prompts, self)" in source
    assert 'extra_fields.pop("env_mask", None)' in source


def test_one_number_would_hide_that_others_are_missing():
    """Why `RolloutSource.reward` leaves every reward of an unscorable completion out."""
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert "unscorable_mask = torch.isnan(rewards_per_func).all(dim=1)" in source


def test_what_is_replaced_is_there():
    assert trl_utils._use_triton
    assert trl_utils.split_tensor_dict
    assert trl_vllm.LLM
    generation = trl_vllm.VLLMGeneration
    assert {"sync_weights", "_iter_named_params"} <= set(dir(generation))
    assert "_last_loaded_step" in inspect.getsource(GRPOTrainer._generate)

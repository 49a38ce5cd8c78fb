"""Pretrain the tiny base model that the tiny profile starts from.

    python assets/make_tiny_base.py --output /tmp/phase1
    python assets/make_tiny_base.py --start-from /tmp/phase1 --output assets/tiny_base \\
        --tokens 3000000 --learning-rate 1e-3 --error-rate 0.12 --tagged-share 0.05 --seed 18

The first phase learns arithmetic from a corpus with 30 % of its steps wrong; in the second 12 % are
wrong and the r1_zero format is completed more rarely still. The wrong steps make the model sample
worse than it knows, which leaves reinforcement learning something to sharpen.

The base stands to the tiny pipeline as Qwen2.5-Math stands to the full one: it has read much worked
mathematics, part of it wrong, and has rarely seen the r1_zero format completed. Problems of the
validation and test splits are never in its corpus (utils/data/problem_generator.py).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from utils.data.problem_generator import stream_problems

ROOT = Path(__file__).resolve().parent.parent
R1_ZERO_PROMPT = (ROOT / "prompts" / "rl_zero.prompt").read_text(encoding="utf-8")
FRAMES = (
    "Problem: {problem}\nSolution: {solution}",
    "Question: {problem}\nAnswer: {solution}",
    "User: {problem}\nAssistant: {solution}",
    "{problem}\n{solution}",
)
END, PAD = "<|endoftext|>", "<|pad|>"
# Qwen2's pre-tokenisation: letters in runs with one leading symbol, every digit alone.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def main(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    if args.start_from:
        tokenizer = AutoTokenizer.from_pretrained(args.start_from)
        model = Qwen2ForCausalLM.from_pretrained(args.start_from, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer(args)
        model = Qwen2ForCausalLM(model_shape(tokenizer))
    started = time.monotonic()
    losses = pretrain(model, tokenizer, args)
    save(model, tokenizer, args, losses, time.monotonic() - started)


def documents(args: argparse.Namespace, seed: int) -> Iterator[str]:
    """Yield corpus documents: worked problems in plain frames, a few under the r1_zero prompt."""
    rng = random.Random(seed)
    for problem in stream_problems("train", seed, args.error_rate):
        if rng.random() >= args.r1_zero_share:
            frame = rng.choice(FRAMES)
            yield frame.format(problem=problem.problem, solution=problem.solution)
            continue
        text = R1_ZERO_PROMPT.replace("{question}", problem.problem) + f" {problem.solution}"
        if rng.random() < args.tagged_share:
            text += f" </think> <answer> {problem.answer} </answer>"
        yield text


def train_tokenizer(args: argparse.Namespace) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with Qwen2's word boundaries on a corpus sample."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    corpus = documents(args, args.seed + 1)
    bpe.train_from_iterator(
        (next(corpus) for _ in range(20_000)),
        trainers.BpeTrainer(
            vocab_size=args.vocabulary,
            special_tokens=[END, PAD],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=PAD, model_max_length=1024
    )


def model_shape(tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def rows(tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> Iterator[torch.Tensor]:
    """Yield token rows (B, T) of documents laid end to end."""
    buffer: list[int] = []
    size = args.rows * args.row_tokens
    corpus = documents(args, args.seed)
    while True:
        while len(buffer) < size:
            batch = [next(corpus) for _ in range(512)]
            for ids in tokenizer(batch, add_special_tokens=False)["input_ids"]:
                buffer += [*ids, tokenizer.eos_token_id]
        yield torch.tensor(buffer[:size]).view(args.rows, args.row_tokens)
        buffer = buffer[size:]


def pretrain(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace
) -> list[float]:
    """Train on next tokens with AdamW under a warm-up and cosine decay; return the losses."""
    steps = args.tokens // (args.rows * args.row_tokens)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / 100) * (0.55 + 0.45 * math.cos(math.pi * step / steps)),
    )
    losses, started = [], time.monotonic()
    for step, ids in zip(range(1, steps + 1), rows(tokenizer, args), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 50 == 0 or step == steps:
            rate = step * ids.numel() / (time.monotonic() - started)
            mean = sum(losses[-50:]) / len(losses[-50:])
            print(f"step {step}/{steps} loss {mean:.4f} {rate:.0f} tokens/s", flush=True)
        if args.save_every and step % args.save_every == 0:
            save(model, tokenizer, args, losses, time.monotonic() - started)
    return losses


def save(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    args: argparse.Namespace,
    losses: list[float],
    seconds: float,
) -> None:
    """Write bfloat16 weights, tokenizer and the record of how they came about."""
    target = Path(args.output)
    weights = {
        name: tensor.bfloat16()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    model.save_pretrained(target, state_dict=weights)
    # Transformers writes the dtype of the model in memory, not that of the weights it was given.
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "bfloat16"
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(target)
    earlier = Path(args.start_from or "") / "pretraining.json"
    record = {
        "phase_before": json.loads(earlier.read_text()) if args.start_from else None,
        "command": "python assets/make_tiny_base.py",
        "arguments": {
            name: value
            for name, value in vars(args).items()
            if name not in ("output", "start_from")
        },
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_seen": len(losses) * args.rows * args.row_tokens,
        "loss_last_100_steps": round(sum(losses[-100:]) / len(losses[-100:]), 4),
        "wall_s": round(seconds, 1),
        "torch": torch.__version__,
    }
    (target / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True)
    parser.add_argument("--start-from", help="folder of an earlier phase to go on from")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--tokens", type=int, default=16_000_000)
    parser.add_argument("--rows", type=int, default=16, help="rows a step")
    parser.add_argument("--row-tokens", type=int, default=384)
    parser.add_argument("--vocabulary", type=int, default=768)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--error-rate", type=float, default=0.3, help="share of wrong steps")
    parser.add_argument("--r1-zero-share", type=float, default=0.08, help="share of documents")
    parser.add_argument("--tagged-share", type=float, default=0.12, help="of those, completed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--save-every", type=int, default=0, help="steps between snapshots")
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_arguments())

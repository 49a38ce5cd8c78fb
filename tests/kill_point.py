"""Run a stage's real `main` and kill all of its processes at the n-th write to its folder.

    KILL_LOG=FILE KILL_AT=7 python -m tests.kill_point step2_sft/step2_sft.py --config ...

The writes of trainer and evaluation worker are counted together, in the log; in step 1 Optuna's
journal counts, in step 3 each file of TRL's training state. But in step 3 the engine is a stand-in
whose completions depend on weights, prompt and seed alone, so that a run takes seconds. With
KILL_TORN=1 the write that kills is half done.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from src.run import files

_LOG, _AT = Path(os.environ["KILL_LOG"]), int(os.environ.get("KILL_AT", "0"))
_TORN = bool(os.environ.get("KILL_TORN"))


def _counted(name: str, path: Path) -> bool:
    """Count a write; tell whether it is the one that kills."""
    with _LOG.open("a+") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.seek(0)
        number = len(log.readlines()) + 1
        log.write(f"{name} {path.parent.name}/{path.name}\n")
    return number == _AT


def _die() -> None:
    os.killpg(0, signal.SIGKILL)


def _before(name: str, write: Callable[..., None]) -> Callable[..., None]:
    def planted(path: Path, content: object) -> None:
        target = content if name == "rename" else path
        assert isinstance(target, Path)
        if _counted(name, target):
            if _TORN and name == "append":
                whole = path.stat().st_size if path.exists() else 0
                write(path, content)
                os.truncate(path, (whole + path.stat().st_size) // 2)
            _die()
        write(path, content)

    return planted


class StandInEngine:
    """Completions and losses from a hash of weights, text and seed."""

    def __init__(
        self, model: str, config: object, tokenizer: object, after_step: object = None
    ) -> None:
        self._tokenizer = tokenizer
        self.swap(Path(model))

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        from src.data.token_ids import prompt_ids

        return prompt_ids(self._tokenizer, texts)

    def swap(self, checkpoint: Path) -> None:
        self._weights = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()

    def prompt_logprobs(self, ids: Sequence[list[int]]) -> list[list[float]]:
        return [[-self._drawn(row, 0) / 1000] * (len(row) - 1) for row in ids]

    def stream(
        self, prompts: Sequence[str], sampling: object, seeds: Sequence[int]
    ) -> Iterator[tuple[int, object]]:
        from src.engine.generator import Completion

        for place, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            text = f"so </think> <answer> {self._drawn(prompt, seed) % 20} </answer>\u2028"
            yield place, Completion(text, 9, truncated=False)

    def _drawn(self, *key: object) -> int:
        return int(hashlib.sha256(repr((self._weights, key)).encode()).hexdigest()[:6], 16)


class StandInVerifier:
    """Swaps, without what only a real engine can prove."""

    def __init__(self, engine: StandInEngine, tolerance: float, loaded: str) -> None:
        self.engine = engine

    def load(self, folder: Path) -> float:
        self.engine.swap(folder)
        return 0.0


def _plant() -> None:
    files.write_bytes_atomic = _before("write", files.write_bytes_atomic)
    files.append_jsonl = _before("append", files.append_jsonl)
    files.move_folder = _before("rename", files.move_folder)
    stage = Path(sys.argv[1]).parent.name
    if stage == "step1_sft_hyper":
        _plant_in_journal()
    if stage == "step3_GRPO":
        _plant_in_torch()
    else:
        _plant_engine()


def _plant_in_journal() -> None:
    from optuna.storages.journal import JournalFileBackend

    original = JournalFileBackend.append_logs

    def append(self: JournalFileBackend, logs: list[dict[str, object]]) -> None:
        _before("append", lambda path, content: original(self, content))(
            Path(self._file_path), logs
        )

    JournalFileBackend.append_logs = append  # type: ignore[method-assign]


def _plant_in_torch() -> None:
    import torch

    original = torch.save

    def save(obj: object, f: object, *more: object, **named: object) -> None:
        if isinstance(f, str | os.PathLike) and _counted("save", Path(f)):
            _die()
        original(obj, f, *more, **named)  # type: ignore[arg-type]

    torch.save = save


def _plant_engine() -> None:
    engine = types.ModuleType("src.engine.vllm_engine")
    engine.VllmEngine = StandInEngine  # type: ignore[attr-defined]
    sys.modules["src.engine.vllm_engine"] = engine
    from src.engine import swap_verifier

    swap_verifier.SwapVerifier = StandInVerifier  # type: ignore[misc,assignment]


_plant()


def main() -> None:
    script = Path(sys.argv[1])
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    stage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stage)
    from src.stages.start import run_stage

    run_stage(
        script.parent.name,
        stage.main,
        default_config=stage.DEFAULT_CONFIG,
        description="",
        arguments=sys.argv[2:],
    )


if __name__ == "__main__":
    main()

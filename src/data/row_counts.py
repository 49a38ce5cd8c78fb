"""How many problems a stage will read, as far as that is known before it reads them."""

from __future__ import annotations

from src.config.loading import resolve_path
from src.config.schema import Config
from utils.data.problem_generator import TEST_PROBLEMS, TRAIN_PROBLEMS
from utils.data.row_files import count_rows
from utils.data.sources import is_hub

_TRAIN_ROWS = {"hub": 7_500, "numina": 859_494}
_TEST_ROWS = {"all": 5_000, "math500": 500}


def train_rows(config: Config) -> int:
    """Return the training problems; copies and rows without an answer are not known yet."""
    data = config.data
    if data.source == "synthetic":
        return data.train_rows or TRAIN_PROBLEMS
    total = _rows_of(data.train_file) if data.source == "files" else None
    left = max(1, (total or _TRAIN_ROWS.get(data.source, 7_500)) - data.validation_rows)
    return min(data.train_rows or left, left)


def sft_rows(config: Config) -> int:
    """Return the rows of an epoch of fine-tuning, before any is left out."""
    files, rehearsal = config.sft.files, config.run.rehearsal
    if not files or config.sft.source != "solutions":
        return train_rows(config) - (rehearsal.spare_rows if rehearsal else 0)
    return max(1, round(sum((_rows_of(item.file) or 0) * item.weight for item in files)))


def test_rows(config: Config) -> int:
    """Return the test problems."""
    data = config.data
    if data.source == "synthetic":
        return data.test_rows or TEST_PROBLEMS
    total = _rows_of(data.test_file) if data.source == "files" else None
    if total is None or data.test_set != "all":
        total = _TEST_ROWS[data.test_set]
    return min(data.test_rows or total, total)


def validation_rows(config: Config, wanted: int) -> int:
    """Return the validation problems of an evaluation that asks for a number of them."""
    return min(wanted, config.data.validation_rows)


def _rows_of(file: str | None) -> int | None:
    """Count a local file's rows; None where it is not there, and MATH's are as good a guess."""
    path = resolve_path(file) if file and not is_hub(file) else None
    return count_rows(path) if path is not None and path.exists() else None

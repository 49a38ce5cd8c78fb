"""Where rows come from: a file, a folder of files, or a data set of the hub.

`hub:NAME[:CONFIGURATION[:SPLIT]][@REVISION]` names a data set of the hub; NAME may be a folder in
the hub's layout, or one that `save_to_disk` wrote. Without a split it is `train` for what is
trained on and `test` for what is tested on. `datasets` reads it, so its cache and HF_HUB_OFFLINE
work as they do everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.data.columns import ROLES, Columns, recognise
from utils.data.json_lines import DataError
from utils.data.row_files import data_files, describe_file, file_format, read_rows

if TYPE_CHECKING:
    from datasets import Dataset

HUB = "hub:"
HUB_FORM = "hub:NAME[:CONFIGURATION[:SPLIT]][@REVISION]"
_HUB_NAME = re.compile(
    r"hub:(?P<name>[^:@]+)(:(?P<configuration>[^:@]*)(:(?P<split>[^@]+))?)?(@(?P<revision>.+))?"
)


@dataclass(frozen=True, slots=True)
class DataRow:
    """A row, the place that messages name, and what its id begins with."""

    file: str
    name: str
    number: int
    content: dict[str, Any]

    @property
    def where(self) -> str:
        """File and number, for messages."""
        return f"{self.file}:{self.number}"


@dataclass(frozen=True, slots=True)
class Source:
    """A file, a folder or a hub's data set, and the settings that name it and its columns."""

    place: Path | str
    split: str = "train"
    """Split of a hub's data set whose name states none."""
    columns: Columns = Columns()
    """Columns named by hand; the others are recognised."""
    setting: str = "data.train_file and data.test_file"
    columns_setting: str = "data.columns"

    @property
    def name(self) -> str:
        """The path, or the hub's name with its split."""
        found = _HUB_NAME.fullmatch(str(self.place))
        if found is None or found["split"]:
            return str(self.place)
        configuration = found["configuration"] or ""
        revision = f"@{found['revision']}" if found["revision"] else ""
        return f"{HUB}{found['name']}:{configuration}:{self.split}{revision}"

    def rows(self) -> Iterator[DataRow]:
        """Yield the rows.

        Raises:
            DataError: for what cannot be read, with file and row and what to do.
        """
        if is_hub(self.place):
            name = Path(self.name.removeprefix(HUB)).name
            for number, row in enumerate(_load(str(self.place), self.split), 1):
                yield DataRow(self.name, name, number, row)
            return
        place = Path(self.place)
        for file in data_files(place, self.setting):
            name = file.relative_to(place.parent).as_posix()
            for number, row in read_rows(file, self.setting):
                yield DataRow(str(file), name, number, row)

    def recognised(self, rows: list[DataRow]) -> Columns:
        """Return the columns that its rows show; see `recognise`."""
        contents = [row.content for row in rows]
        return recognise(contents, self.columns, self.name, self.columns_setting)

    def describe(self) -> dict[str, Any]:
        """Return its number of rows and a SHA-256, or the hub's fingerprint, for the manifest."""
        if not is_hub(self.place):
            return describe_file(Path(self.place))
        loaded = _load(str(self.place), self.split)
        return {"fingerprint": loaded._fingerprint, "rows": len(loaded)}

    def format(self) -> str:
        """Say in a few words what it is: `JSON lines, gzip`."""
        if is_hub(self.place):
            return "data set"
        place = Path(self.place)
        files = data_files(place, self.setting)
        several = f"{len(files):,} files, the first " if place.is_dir() else ""
        return several + file_format(files[0])


def describe_reading(source: Source, rows: int, columns: Columns, solved: int) -> str:
    """Say in one line what a source was found to be."""
    paths = {role: getattr(columns, role) for role in ROLES}
    if solved and not paths["solution"]:  # a column of worked answers, as GSM8K's
        paths["solution"] = paths["answer"]
    read = ", ".join(f"{role} from {path}" for role, path in paths.items() if path)
    return f"{source.name}: {source.format()}, {rows:,} rows, {solved:,} with a solution: {read}"


def is_hub(place: Path | str) -> bool:
    """Tell a data set of the hub from a file or a folder."""
    return isinstance(place, str) and place.startswith(HUB)


@lru_cache(maxsize=4)
def _load(place: str, split: str) -> Dataset:
    """Load a data set of the hub, or a local copy of one."""
    found = _HUB_NAME.fullmatch(place)
    if found is None:
        raise DataError(f"{place}: no name of a data set of the hub; write {HUB_FORM}")
    # Imported here: the hub client takes seconds, and local files do not need it.
    from datasets import load_dataset, load_from_disk  # noqa: PLC0415
    from datasets.exceptions import DatasetsError  # noqa: PLC0415

    name, split = found["name"], found["split"] or split
    try:
        saved = [Path(name) / inner / "state.json" for inner in (split, "")]
        for state in saved:
            if state.is_file():
                return load_from_disk(str(state.parent))
        return load_dataset(
            name, found["configuration"] or None, split=split, revision=found["revision"]
        )
    except (OSError, ValueError, DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{place}: split {split} could not be loaded ({type(error).__name__}: {reason}); a set "
            f"is named {HUB_FORM}; without a connection name a copy, hub:FOLDER, or use local "
            "files: --set data.source=files --set data.train_file=... --set data.test_file=..."
        ) from error

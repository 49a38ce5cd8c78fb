"""What a report states of the data: sizes, what was left out, what repeats a held-out problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = dict[str, Any]
_KINDS = {
    "exact": "copies of a test problem",
    "normalised": "copies but for case and white space",
    "numbers": "the same but for their numbers",
    "near": "nearly the same",
    "contained": "holding a held-out problem whole",
}


def summarise_data(data: Record) -> Record:
    """Leave the files, hashes and examples of a manifest's data out."""
    return {
        "splits": {name: split["n"] for name, split in data["splits"].items()},
        "rows_left_out": data["rows_left_out"],
        "duplicates": _counts(data["duplicates"]),
        "sft_files_duplicates": _counts(data.get("sft_files_duplicates", {})),
    }


def describe_data(outcomes: Mapping[str, Record]) -> str:
    """Say in one line what the stages were fitted, chosen and reported on."""
    stated = [outcome["data"] for outcome in outcomes.values()]
    sizes = ", ".join(f"{count:,} {name}" for name, count in stated[0]["splits"].items())
    left_out = stated[0]["rows_left_out"]
    # Only the stages that train on rows read sft.files.
    files = next((data for data in stated if data["sft_files_duplicates"]), stated[0])
    return "; ".join(
        [
            f"{sizes} problems",
            f"left out {left_out['without_answer']} rows without an answer and "
            f"{left_out['repeated']} that repeat a test or an earlier problem",
            *_describe("training and validation problems", stated[0]["duplicates"]),
            *_describe("rows of sft.files", files["sft_files_duplicates"]),
        ]
    )


def _counts(duplicates: Record) -> Record:
    return {
        kind: {key: found[key] for key in ("count", "removed")}
        for kind, found in duplicates.items()
    }


def _describe(rows: str, duplicates: Record) -> list[str]:
    """Say how many rows repeat a held-out problem, by kind."""
    return [
        f"{found['count']:,} {rows} {_KINDS[kind]}, {found['removed']:,} of them left out"
        for kind, found in duplicates.items()
    ]

"""Rows of an interrupted evaluation: every one that was written whole, whatever its texts hold."""

from __future__ import annotations

from src.evaluation.rows import PartialRows

TEXTS = ["a\u2028b", "a\u2029b", "a\x85b", "a\x0bb", "a\x0cb", "a\x1cb", "a\rb", "a\nb", "é"]


def test_rows_with_separators_and_a_torn_last_line(tmp_path):
    file = tmp_path / "completions.jsonl"
    rows = [{"completion": text} for text in TEXTS]
    first = PartialRows(file, {"checkpoint": "a"})
    assert first.begin() == []
    first.add(rows)
    with (tmp_path / "completions.jsonl.partial").open("ab") as stream:
        stream.write('{"completion": "é'.encode()[:-1])  # cut within a character
    assert PartialRows(file, {"checkpoint": "a"}).begin() == rows
    assert PartialRows(file, {"checkpoint": "b"}).begin() == []

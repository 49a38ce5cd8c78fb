"""Every data file that people bring is read, or gets a sentence with file, row and remedy."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from utils.data.answers import is_answer
from utils.data.json_lines import DataError
from utils.data.row_files import read_rows
from utils.data.sft_file_loader import load_sft_rows
from utils.data.sources import Source
from utils.dataset_loader import SplitSizes, load_sources

GOOD = {"problem": "1+1? é", "solution": r"\boxed{2}"}
LINE = (json.dumps(GOOD, ensure_ascii=False) + "\n").encode()
LINES = LINE * 3
CSV_ROW = '"1+1? é",\\boxed{2}\n'.encode()
ZSTD = pyarrow.Codec("zstd")
READ = {
    "plain.jsonl": LINES,
    "mark.jsonl": b"\xef\xbb\xbf" + LINES,
    "windows.jsonl": LINES.replace(b"\n", b"\r\n"),
    "no_last_newline.jsonl": LINES.rstrip(),
    "packed.jsonl.gz": gzip.compress(LINES),
    "packed_unnamed.jsonl": gzip.compress(LINES),
    "plain_misnamed.jsonl.gz": LINES,
    "two_members.gz": gzip.compress(LINE) + gzip.compress(LINE * 2),
    "packed.jsonl.bz2": bz2.compress(LINES),
    "packed.jsonl.xz": lzma.compress(LINES),
    "packed.jsonl.zst": ZSTD.compress(LINES, asbytes=True),
    "two_frames.zst": ZSTD.compress(LINE, asbytes=True) + ZSTD.compress(LINE * 2, asbytes=True),
    "array.jsonl": json.dumps([GOOD] * 3).encode(),
    "indented.json": json.dumps([GOOD] * 3, indent=1).encode(),
    "array.json.gz": gzip.compress(b"\n" + json.dumps([GOOD] * 3).encode()),
    "rows.csv": b'problem,solution\n' + 3 * CSV_ROW,
    "windows.csv": b'\xef\xbb\xbfproblem,solution\r\n' + 3 * CSV_ROW.replace(b"\n", b"\r\n"),
    "rows.tsv": b"problem\tsolution\n" + 3 * CSV_ROW.replace(b",", b"\t"),
    "semicolons.csv": b"problem;solution\n\n" + 3 * CSV_ROW.replace(b",", b";"),
    "table.txt": b"solution , problem\n" + 3 * b'\\boxed{2},"1+1? \xc3\xa9"\n',
    "rows.csv.zst": ZSTD.compress(b"problem,solution\n" + 3 * CSV_ROW, asbytes=True),
}  # fmt: skip
REFUSED = {
    "cut.jsonl.gz": (gzip.compress(LINES)[:-20], r": damaged or cut short after line \d"),
    "cut_at_last_byte.jsonl.gz": (gzip.compress(LINES)[:-1], r": .* cut short after line 3"),
    "wrong_sum.gz": (gzip.compress(LINES)[:-8] + b"12345678", "damaged or cut short"),
    "followed.gz": (gzip.compress(LINES) + b"x", "damaged or cut short"),
    "noise.gz": (gzip.compress(b"")[:10] + b"\xff" * 30, "damaged or cut short after line 0"),
    "cut.bz2": (bz2.compress(LINES)[:-1], "damaged or cut short"),
    "cut.xz": (lzma.compress(LINES)[:-1], "damaged or cut short"),
    "noise.zst": (b"\x28\xb5\x2f\xfd" + b"x" * 9, "damaged or cut short after line 0"),
    "cut.zst": (ZSTD.compress(LINES, asbytes=True)[:-1], "damaged or cut short"),
    "followed.zst": (ZSTD.compress(LINES, asbytes=True) + b"x", "damaged or cut short"),
    "utf16.jsonl": (LINES.decode().encode("utf-16"), "UTF-16 text.*iconv"),
    "utf16_no_mark.jsonl": (LINES.decode().encode("utf-16-le"), r":1: byte 2 .* NUL: UTF-16"),
    "latin.jsonl": (b'{"a": 1}\n{"a": "\xe9"}\n', r":2: byte 8 of the line \(0xe9\) is not UTF-8"),
    "nul.jsonl": (LINES + b"\0" * 40, r":4: byte 1 of the line is NUL"),
    "half.jsonl": (LINES + rb'{"problem": "\ud83d"}', r":4: \\ud83d is half of a surrogate"),
    "array.json": (json.dumps([GOOD, 3]).encode(), ":2: expected an object, got int"),
    "nested.json": (json.dumps([[GOOD]]).encode(), ":1: expected an object, got list"),
    "cut.json": (json.dumps([GOOD] * 2).encode()[:-9], r": not valid JSON \(.*objects alone"),
    "twice.json": (b'[{"a": 1, "a": 2}]', ": key 'a' stands twice"),
    "half.json": (rb'[{"a": 1}, {"a": "\ud83d"}]', r":2: \\ud83d is half of a surrogate"),
    "no_rows.json": (b"[]", ": no rows"),
    "two_objects.json": (json.dumps(GOOD, indent=1).encode() * 2, ":1: not valid JSON"),
    "header.csv": (b"problem,solution\n", ": no rows"),
    "wide.csv": (b"problem,solution\n1,2\n1,2,3\n", ":3: 3 values in a table of 2 columns"),
    "open.csv": (b'problem,solution\n1,"2\n', r":2: no table of separated values \(unexpected"),
    "twice.csv": (b"a,b,a\n1,2,3\n", ":1: column 'a' stands twice"),
    "latin.csv": (b"problem,solution\n1,\xe9\n", r":2: byte 3 of the line \(0xe9\) is not UTF-8"),
    "page.jsonl": (b"<!DOCTYPE html>", "a page of markup"),
    "pointer.jsonl": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "pickle.jsonl": (b"\x80\x04\x95", "a pickle, which is never loaded"),
    "empty.jsonl": (b"", ": no rows"),
    "blank.jsonl": (b"\n \n", ": no rows"),
    "empty.gz": (gzip.compress(b""), ": no rows"),
    "damaged.parquet": (b"PAR1" + b"x" * 40, "Parquet that cannot be read"),
    "number.jsonl": (LINES + b"3\n", ":4: expected an object, got int"),
    "null.jsonl": (LINES + b"null\n", ":4: expected an object, got NoneType"),
    "cut_line.jsonl": (LINES + b'{"problem": "x', r":4: not valid JSON \(Unterminated"),
    "deep.jsonl": (b'{"a": ' + b"[" * 200_000, ":1: nested too deeply"),
    "long_number.jsonl": (b'{"a": ' + b"1" * 5000 + b"}", ":1: a number is too long"),
    "twice.jsonl": (LINES + b'{"a": 1, "a": 2}', ":4: key 'a' stands twice"),
}  # fmt: skip
ROWS = {
    "missing": ({"solution": "x"}, "key 'problem' must be a text, got missing; there are 'sol"),
    "null": (GOOD | {"problem": None}, "key 'problem' must be a text, got NoneType"),
    "nested": (GOOD | {"solution": {"text": "x"}}, "key 'solution' must be a text, got dict"),
    "blank": (GOOD | {"solution": " "}, "key 'solution' must be a text, got blank"),
    "true": (GOOD | {"answer": True}, "key 'answer' must be a text or a number, got bool"),
    "list": (GOOD | {"answer": ["2", "3"]}, "key 'answer' must be a text or a number, got list"),
}


def many(count: int, prefix: str = "p") -> list[dict]:
    return [{"problem": f"{prefix}{i}?", "solution": rf"\boxed{{{i}}}"} for i in range(count)]


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def loaded(tmp_path: Path, train: list[dict], test: list[dict] | None = None):
    fitted = Source(written(tmp_path / "train.jsonl", train))
    tested = Source(written(tmp_path / "test.jsonl", test or many(3, "t")), "test")
    return load_sources([fitted], [tested], SplitSizes(None, 1, None), 0)


@pytest.mark.parametrize("name", READ)
def test_what_is_read(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(READ[name])
    assert [row for _, row in read_rows(file)] == [GOOD] * 3


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_said(tmp_path, name):
    file = tmp_path / name
    content, says = REFUSED[name]
    file.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(file)) + ".*" + says):
        list(read_rows(file))


def test_one_object_of_several_lines_is_one_row(tmp_path):
    file = tmp_path / "one.json"
    for indent in (None, 1):
        file.write_text(json.dumps(GOOD, indent=indent))
        assert list(read_rows(file)) == [(1, GOOD)]


def test_values_of_a_table_are_texts_over_several_lines_or_absent(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text('problem,solution,answer\n"a ""b"",\n\nc",x,\nd,y,007\n')
    assert list(read_rows(file)) == [
        (2, {"problem": 'a "b",\n\nc', "solution": "x", "answer": None}),
        (5, {"problem": "d", "solution": "y", "answer": "007"}),
    ]


def test_what_is_no_file_is_said(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as packed:
        packed.writestr("rows.jsonl", LINES)
    cases = {".": "a folder", "pipe.jsonl": "no regular file", "absent": "no such data file",
             "rows.zip": "a zip archive", "a" * 300: "cannot be read"}  # fmt: skip
    for name, says in cases.items():
        with pytest.raises(DataError, match=says):
            list(read_rows(tmp_path / name))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\).*permissions"):
        list(read_rows(Path("closed.jsonl")))


def test_parquet_is_known_by_its_content(tmp_path):
    file = tmp_path / "rows.data"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD] * 2), file)
    assert [row for _, row in read_rows(file)] == [GOOD] * 2
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="Parquet that cannot be read"):
        list(read_rows(file))


def test_a_line_ends_at_a_newline_alone(tmp_path):
    rows = [{"text": text} for text in ("a\u2028b", "a\u2029b", "a\x85b", "a\x0bb", "a\x0cb\x1c")]
    file = tmp_path / "rows.jsonl"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_bytes(lines.encode())
    assert list(read_rows(file)) == list(enumerate(rows, 1))


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_cannot_be_used_is_named(tmp_path, name):
    row, says = ROWS[name]
    with pytest.raises(DataError, match=r"train\.jsonl:6: " + re.escape(says)):
        loaded(tmp_path, [*many(5), row])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(0, "0"), (0.5, "0.5"), (-3, "-3"), (1e22, "1" + 22 * "0"), ("0", "0"), ("", "7"), (None, "7"),
     ("None", "None"), (1e-7, "0.0000001")],
)  # fmt: skip
def test_a_stated_answer_is_the_reference(tmp_path, answer, expected):
    row = {"problem": "q?", "solution": r"\boxed{7}", "answer": answer}
    problems = loaded(tmp_path, many(5), [row])
    assert problems.test[0].answer == expected
    assert problems.without_answer == []


@pytest.mark.parametrize(
    "answer",
    ["proof", "notfound", "Not Found", "$\\text{Proof.}$", float("nan"), float("-inf"), "N/A"],
)
def test_what_is_no_answer_is_left_out_and_listed(tmp_path, answer):
    none = {"problem": "q?", "solution": r"\boxed{7}", "answer": answer}
    problems = loaded(tmp_path, [*many(5), none])
    assert len(problems.train) + len(problems.validation) == 5
    (listed,) = problems.without_answer
    assert listed.startswith(f"{tmp_path / 'train.jsonl'}:6 (")
    (row,) = load_sft_rows(Source(written(tmp_path / "sft.jsonl", [none]))).rows
    assert row.answer is None


def test_ordinary_answers_are_answers():
    for text in (
        "0",
        "A",
        "no",
        "none",
        r"\emptyset",
        r"\text{proof by induction}",
        "-1",
        r"\infty",
    ):
        assert is_answer(text), text


def test_a_repeated_id_is_refused_with_both_rows(tmp_path):
    test = [row | {"unique_id": f"id{i % 2}"} for i, row in enumerate(many(3, "t"))]
    with pytest.raises(DataError, match=r"test\.jsonl:3: unique_id 'id0' .*test\.jsonl:1 too"):
        loaded(tmp_path, many(5), test)
    train = [row | {"unique_id": "same"} for row in many(5)]
    with pytest.raises(DataError, match=r"train\.jsonl:2: unique_id 'same'"):
        loaded(tmp_path, train)
    twice = [row | {"unique_id": f"id{i}"} for i, row in enumerate(many(5))] * 2
    assert loaded(tmp_path, twice).overlap_removed == 5
    nan = [row | {"unique_id": float("nan"), "type": float("nan")} for row in many(3, "t")]
    assert {row.type for row in loaded(tmp_path, many(5), nan).test} == {"unknown"}

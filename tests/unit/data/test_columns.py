"""Each published data set's shape gives problem, solution and answer; what is ambiguous is refused.

The rows are made up; their columns are those of the sets' cards on the hub.
"""

from __future__ import annotations

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from utils.data.columns import Columns
from utils.data.json_lines import DataError
from utils.data.sft_file_loader import load_sft_rows
from utils.data.sources import Source
from utils.dataset_loader import SplitSizes, load_sources

DAPO_HEAD = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
DAPO_TAIL = '\n\nRemember to put your answer on its own line after "Answer:".'


def user(text, reply=None):
    turns = [{"role": "user", "content": text}]
    return turns if reply is None else [*turns, {"role": "assistant", "content": reply}]


def asked(text, reply):
    return [{"from": "user", "value": text}, {"from": "assistant", "value": reply}]


def dapo(problem, answer):
    return {
        "data_source": "math_dapo",
        "prompt": user(DAPO_HEAD + problem + DAPO_TAIL),
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "a-b"},
    }


def open_r1(problem, generations, by_rule, by_judge, solution="Short. $\\boxed{5}$"):
    return {
        "problem": problem,
        "solution": solution,
        "answer": "5",
        "problem_type": "Algebra",
        "source": "olympiads",
        "uuid": "u",
        "is_reasoning_complete": [True] * len(generations),
        "generations": generations,
        "correctness_math_verify": by_rule,
        "correctness_llama": by_judge,
        "messages": user(problem, generations[0]),
    }


def thought(right):
    return {
        "source": "aops_forum",
        "problem": "Three and four?",
        "solution": "Plainly $\\boxed{7}$.",
        "messages": user("Three and four?", "Plainly $\\boxed{7}$."),
        "system": "Think long.",
        "conversations": asked(
            "Return your final response within \\boxed{}. Three and four?",
            "<|begin_of_thought|>\n\nCount on.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n"
            "So $\\boxed{7}$.\n\n<|end_of_solution|>",
        ),
        "generated_token_count": 9,
        "correct": right,
    }


VERL = 'Let\'s think step by step and output the final answer after "####".'
GSM8K = {
    "question": "Ann has 40 eggs and buys 2,000 more. How many?",
    "answer": "She has 40+2,000=<<40+2000=2040>>2,040 eggs.\n#### 2,040",
}
GSM8K_READ = (
    GSM8K["question"],
    "She has 40+2,000=2,040 eggs.\nThe final answer is $\\boxed{2040}$.",
    "2040",
)
NO_SOLUTION = ""
SETS = {
    "openai/gsm8k": ([GSM8K], [GSM8K_READ]),
    "BytedTsinghua-SIA/DAPO-Math-17k": (
        [dapo("Find $x$.", "34"), dapo("Find $y$.", "-3")],
        [("Find $x$.", NO_SOLUTION, "34"), ("Find $y$.", NO_SOLUTION, "-3")],
    ),
    "open-r1/DAPO-Math-17k-Processed": (
        [dapo("Find $x$.", "34") | {"prompt": "Find $x$.", "solution": "34", "source_prompt": []}],
        [("Find $x$.", NO_SOLUTION, "34")],
    ),
    "verl's GSM8K": (
        [{"prompt": user(f"1+1? {VERL}"),
          "reward_model": {"ground_truth": ["2"]}, "extra_info": {"answer": "...", "index": 0}}],
        [("1+1?", NO_SOLUTION, "2")],
    ),
    "open-r1/OpenR1-Math-220k": (
        [open_r1("A?", ["<think>\nHm.\n</think>\n\n$\\boxed{4}$",
                         "<think>\nAh.\n</think>\n\n$\\boxed{5}$"],
                 [False, True], None),
         open_r1("B?", ["a \\boxed{5}", "b \\boxed{5}"], [False, False], [True, False]),
         open_r1("C?", ["a \\boxed{4}"], [False], None)],
        [("A?", "Ah.\n\n$\\boxed{5}$", "5"), ("B?", "a \\boxed{5}", "5"), ("C?", NO_SOLUTION, "5")],
    ),
    "open-r1/OpenThoughts-114k-math": (
        [thought(True), thought(False)],
        [("Three and four?", "Count on.\n\nSo $\\boxed{7}$.", "7"), ("Three and four?", "", "7")],
    ),
    "open-thoughts/OpenThoughts-114k": (
        [{"system": "Think.", "conversations": thought(True)["conversations"]}],
        [("Three and four?", "Count on.\n\nSo $\\boxed{7}$.", "7")],
    ),
    "open-thoughts/OpenThoughts-114k:metadata": (
        [{"problem": "P?", "deepseek_reasoning": "Hm.", "deepseek_solution": "So $\\boxed{7}$.",
          "ground_truth_solution": "It is $\\boxed{7.0}$.", "domain": "math"}],
        [("P?", "So $\\boxed{7}$.", "7.0")],
    ),
    "open-thoughts/OpenThoughts3-1.2M": (
        [{"difficulty": 7, "source": "s", "domain": "math", "conversations":
          [{"from": "human", "value": "P?"},
           {"from": "gpt", "value": "<think>Hm.</think> \\boxed{1}"}]}],
        [("P?", "Hm.\n\n\\boxed{1}", "1")],
    ),
    "AI-MO/NuminaMath-CoT": (
        [{"source": "cn_k12", "problem": "P?", "solution": "So $\\boxed{\\frac{1}{2}}$.",
          "messages": user("P?", "So $\\boxed{\\frac{1}{2}}$.")}],
        [("P?", "So $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}")],
    ),
    "AI-MO/NuminaMath-1.5": (
        [{"problem": "P?", "solution": "Four, as said.", "answer": "4", "problem_type": "Algebra",
          "question_type": "math-word-problem", "problem_is_valid": "Yes", "source": "olympiads"},
         {"problem": "Prove it.", "solution": "Done.", "answer": "proof", "source": "olympiads"},
         {"problem": "Q?", "solution": "See $\\boxed{6}$.", "answer": "notfound", "source": "amc"}],
        [("P?", "Four, as said.", "4")],
    ),
    "zwhe99/DeepMath-103K": (
        [{"question": "P?", "final_answer": "\\infty", "difficulty": 5.5, "topic": "Limits",
          "r1_solution_1": "Hm.\n</think>\n\nIt is \\boxed{\\infty}.", "r1_solution_2": "2",
          "r1_solution_3": "3"}],
        [("P?", "Hm.\n\nIt is \\boxed{\\infty}.", "\\infty")],
    ),
    "nvidia/OpenMathInstruct-2": (
        [{"problem": "P?", "generated_solution": "So \\boxed{3}.", "expected_answer": "3",
          "problem_source": "augmented_math"}],
        [("P?", "So \\boxed{3}.", "3")],
    ),
    "HuggingFaceH4/aime_2024": (
        [{"id": 60, "problem": "P?", "solution": "Thus \\boxed{025}.", "answer": "025"}],
        [("P?", "Thus \\boxed{025}.", "025")],
    ),
    "Maxwell-Jia/AIME_2024": (
        [{"ID": "2024-I-1", "Problem": "P?", "Solution": "Thus 25.", "Answer": 25}],
        [("P?", "Thus 25.", "25")],
    ),
    "math-ai/aime24": (
        [{"id": 0, "problem": "P?", "solution": "\\boxed{204}", "url": "u"}],
        [("P?", "\\boxed{204}", "204")],
    ),
    "opencompass/AIME2025": ([{"question": "P?", "answer": "70"}], [("P?", NO_SOLUTION, "70")]),
    "AI-MO/aimo-validation-amc": (
        [{"id": 0, "problem": "P?", "answer": 142.0, "url": "u"}],
        [("P?", NO_SOLUTION, "142.0")],
    ),
    "math-ai/minervamath": (
        [{"question": "P?", "answer": "\\frac{1}{2}"}, {"question": "Q?", "answer": "3e8"}],
        [("P?", NO_SOLUTION, "\\frac{1}{2}"), ("Q?", NO_SOLUTION, "3e8")],
    ),
    "Minerva with solutions": (
        [{"problem": "P?", "solution": "Then $v=\\boxed{3e8}$.", "type": "Physics", "idx": 0}],
        [("P?", "Then $v=\\boxed{3e8}$.", "3e8")],
    ),
    "Hothan/OlympiadBench": (
        [{"id": 1, "question": "P?", "solution": ["First way.", "Second way."], "context": None,
          "final_answer": ["$(1,8), (2,7)$"], "is_multiple_answer": True, "subfield": "Algebra"},
         {"id": 2, "question": "Prove it.", "solution": ["Done."], "final_answer": None}],
        [("P?", "First way.", "$(1,8), (2,7)$")],
    ),
    "HuggingFaceH4/MATH-500": (
        [{"problem": "P?", "solution": "So $\\boxed{1}$.", "answer": "1", "subject": "Algebra",
          "level": 2, "unique_id": "test/algebra/1.json"}],
        [("P?", "So $\\boxed{1}$.", "1")],
    ),
    "an exported chat": (
        [{"messages": [{"role": "system", "content": "Be brief."}, *user("P?", "So \\boxed{1}.")]}],
        [("P?", "So \\boxed{1}.", "1")],
    ),
    "worked answers in boxes": (
        [{"question": "P?", "answer": "First 2, so $\\boxed{1}$."},
         {"question": "Q?", "answer": "$\\boxed{3}$"}],
        [("P?", "First 2, so $\\boxed{1}$.", "1"), ("Q?", NO_SOLUTION, "$\\boxed{3}$")],
    ),
}  # fmt: skip
SIZES = SplitSizes(None, 0, None)
OTHERS = [{"problem": f"other {i}?", "answer": str(i)} for i in range(3)]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


RECOGNISED = Columns()


def read(tmp_path, test, columns=RECOGNISED):
    fitted = Source(written(tmp_path / "train.jsonl", OTHERS))
    place = test if not isinstance(test, list) else written(tmp_path / "test.jsonl", test)
    return load_sources([fitted], [Source(place, "test", columns)], SIZES, 0)


def texts(problems):
    return [(one.problem, one.solution, one.answer) for one in problems]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_known_set_is_read(tmp_path, name, form):
    rows, expected = SETS[name]
    file = written(tmp_path / "set.jsonl", rows)
    if form == "parquet":
        file = tmp_path / "set.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    problems = read(tmp_path, file)
    assert texts(problems.test) == expected
    assert len(problems.without_answer) == len(rows) - len(expected)


@pytest.mark.parametrize("name", SETS)
def test_a_known_set_is_read_for_fine_tuning_alike(tmp_path, name):
    rows, expected = SETS[name]
    taught = load_sft_rows(Source(written(tmp_path / "set.jsonl", rows))).rows
    graded = [row for row in taught if (row.problem, row.solution) in {e[:2] for e in expected}]
    assert [(row.problem, row.solution) for row in graded] == [one[:2] for one in expected]
    for row, (_, _, answer) in zip(graded, expected, strict=True):
        assert row.answer in (answer, None)  # None: the solution's box will say


def test_the_hub_s_table_of_strings_is_read(tmp_path):
    file = tmp_path / "rows.csv"
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, GSM8K)
        table.writeheader()
        table.writerow(GSM8K)
    assert texts(read(tmp_path, file).test) == [GSM8K_READ]


def test_math_s_own_folder_is_read(tmp_path):
    for subject, number in (("algebra", 1), ("algebra", 10), ("geometry", 1)):
        folder = tmp_path / "MATH" / "test" / subject
        folder.mkdir(parents=True, exist_ok=True)
        row = {"problem": f"{subject} {number}?", "level": "Level 5", "type": subject.title(),
               "solution": f"First $\\boxed{{0}}$, then $\\boxed{{{number}}}$."}  # fmt: skip
        (folder / f"{number}.json").write_text(json.dumps(row, indent=4))
    (tmp_path / "MATH" / "test" / "README.md").write_text("no rows")
    problems = read(tmp_path, tmp_path / "MATH" / "test")
    assert [(one.unique_id, one.answer, one.level, one.type) for one in problems.test] == [
        ("test/algebra/1.json/1", "1", 5, "Algebra"),
        ("test/algebra/10.json/1", "10", 5, "Algebra"),
        ("test/geometry/1.json/1", "1", 5, "Geometry"),
    ]
    assert problems.files[str(tmp_path / "MATH" / "test")]["rows"] == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"a folder without data files \(\.jsonl, .*; check"):
        read(tmp_path, tmp_path / "empty")


def test_what_was_recognised_is_said(tmp_path):
    said = read(tmp_path, [GSM8K]).recognised
    assert said == [
        f"{tmp_path / 'train.jsonl'}: JSON lines, 3 rows, 0 with a solution: problem from problem, "
        "answer from answer",
        f"{tmp_path / 'test.jsonl'}: JSON lines, 1 rows, 1 with a solution: problem from question, "
        "solution from answer, answer from answer",
    ]


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        ({"frage": "P?", "weg": "So \\boxed{1}."}, Columns("frage", "weg"), "So \\boxed{1}."),
        ({"q": {"text": ["x", "P?"]}, "gold": 1}, Columns("q.text.1", None, "gold"), ""),
        ({"problem": "P?", "solution": "a", "output": "b", "answer": "1"},
         Columns(solution="output"), "b"),
        ({"problem": "P?", "output": "b", "answer": "2", "ground_truth": "1"},
         Columns(answer="ground_truth"), "b"),
        (open_r1("P?", ["a", "b"], [True, False], None) | {"answer": "1"},
         Columns(solution="generations.1"), "b"),
        ({"problem": "P?", "solution": "1"}, Columns(answer="solution"), ""),
        ({"problem": "P?", "solution": "b", "gold": "or \\boxed{1}"}, Columns(answer="gold"), "b"),
    ],
)  # fmt: skip
def test_columns_are_named_by_hand(tmp_path, row, columns, expected):
    assert texts(read(tmp_path, [row], columns).test) == [("P?", expected, "1")]


@pytest.mark.parametrize(
    ("row", "columns", "says"),
    [
        ({"problem": "P?", "prompt": "Other?", "answer": "1"}, Columns(),
         r"'problem' and 'prompt' could both be the problem, .* \(row 2: 'P\?' and 'Other\?'\); "
         r"the columns are 'problem', 'answer', 'prompt'; name one in data\.columns\.problem"),
        ({"problem": "P?", "solution": "a", "output": "b"}, Columns(),
         r"'solution' and 'output' could both be the solution.* name one in data\.columns"),
        ({"problem": "P?", "answer": "1", "final_answer": 2}, Columns(),
         r"'answer' and 'final_answer' could both be the answer.*\(row 2: '1' and '2'\)"),
        ({"problem": "P?", "answer": "1"}, Columns(answer="gold"),
         r"data\.columns\.answer: no row has 'gold'; the columns are 'problem', 'answer'; name"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_or_missing_is_refused_with_the_columns_seen(
    tmp_path, row, columns, says
):
    with pytest.raises(DataError, match=r"test\.jsonl: " + says):
        read(tmp_path, [{"problem": "first?", "answer": "0"}, row], columns)


def test_unknown_columns_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no column is known to hold the problem; .* 'frage'"):
        read(tmp_path, [{"frage": "P?", "answer": "1"}])
    with pytest.raises(DataError, match="no column is known to hold answers or solutions"):
        read(tmp_path, [{"problem": "P?", "gold": "1"}])


def test_columns_that_agree_are_no_matter(tmp_path):
    row = GSM8K | {"final_answer": 2040, "prompt": user(GSM8K["question"])}
    assert texts(read(tmp_path, [row]).test) == [GSM8K_READ]


def test_a_chat_written_as_a_text_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"test\.jsonl:1: .* a list written as a text"):
        read(tmp_path, [{"prompt": str(user("P?")), "answer": "1"}])

"""The report of made-up stage folders: schema, figures by hand, mixing refused, partial runs."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure

from src.config.loading import ROOT
from src.report.report import _shown_checkpoint, write_report
from src.run.directory import SEARCH_STAGE, STAGES
from src.run.files import append_jsonl, read_json
from utils.stats.statistics import wilson_interval

DATA = {
    "splits": {"train": 1600, "validation": 120, "test": 80},
    "rows_left_out": {"without_answer": 2, "repeated": 3},
    "duplicates": {"numbers": {"count": 251, "removed": 0}},
    "sft_files_duplicates": {},
}
LEAKED = {"contained": {"count": 2, "removed": 2}}
COMMON = {
    **{"status": "finished", "profile": "tiny", "hardware": "2 cores", "commit": "abc1234"},
    "data": DATA,
}
N = 80


def scored(stage, correct, **changes):
    """Make the outcome of a scored stage with 4 format failures and 1 unscorable problem."""
    counts = {
        "correct": correct,
        "wrong_answer": N - correct - 5,
        "format_failure": 4,
        "unscorable": 1,
    }
    return {
        **COMMON,
        "stage": stage,
        "n": N,
        "accuracy": correct / N,
        "accuracy_ci95": [0.1, 0.9],
        "format_rate": 1 - 4 / N,
        "accuracy_well_formed": correct / (N - 4),
        "accuracy_anywhere": (correct + 2) / N,
        "outcomes": counts,
        "faults": {"wrong_value": N - correct - 5, "missing_close_think": 4, "unscorable": 1},
        "by_level": {"1": [correct, N]},
        "by_type": {"Algebra": [correct, N]},
        "by_length": [[10, 60, correct, N]],
        "truncated_rate": 0.1,
        "mean_completion_tokens": 50.0,
        "test_set": {"n": N, "sha256": "a" * 64},
        "prompt_sha256": "b" * 64,
        "sampling": {"temperature": 1.0, "top_p": 1.0, "max_completion_tokens": 160, "seed": 17},
        "wall_s": 90.0,
        "checkpoint": f"{ROOT}/results/made_up/{stage}/checkpoints/step_000050",
        **changes,
    }


SEARCH = {
    **COMMON,
    "stage": SEARCH_STAGE,
    "importances": {"train.learning_rate": 0.9, "train.batch_size": 0.1},
    "trials": 8,
    "pruned": 3,
    "failed": 1,
    "best": {
        "number": 5,
        "value": 0.375,
        "n": 500,
        "accuracy": 0.36,
        "accuracy_ci95": [0.319, 0.403],
        "params": {"train.learning_rate": 0.000123456, "train.batch_size": 16},
        "objective": "validation_accuracy",
    },
    "difference": {"between": [5, 2], "points": 1.2, "ci95": [-4.7, 7.1], "flat": True},
    "busy": {"train": 0.62, "eval": 0.81},
    "plot": "study.png",
    "wall_s": 600.0,
    "checkpoint": None,
}


def write_run(folder, *outcomes):
    for outcome in outcomes:
        stage = folder / outcome["stage"]
        stage.mkdir(parents=True)
        (stage / "outcome.json").write_text(json.dumps(outcome))
        if "outcomes" in outcome:
            append_jsonl(stage / "completions.jsonl", completions(outcome["outcomes"]["correct"]))
    return folder


def completions(correct):
    """Answer the first problems correctly; two more state the right answer in the wrong place."""
    return [
        {
            "unique_id": str(number),
            "outcome": "correct" if number < correct else "wrong_answer",
            "found": number < correct + 2,
            **{"problem": f"What is {number}?", "reference": str(number), "level": 1},
            **{"type": "Algebra", "completion": "</script><b>x", "fault": None, "reason": ""},
            **{"answer": "1", "tokens": 10 + number, "truncated": False},
        }
        for number in range(N)
    ]


def add_curves(folder):
    for step in range(10, 60, 10):
        row = {"step": step, "time_s": 1.0, "train/loss": 2.0}
        append_jsonl(folder / "step2_sft" / "metrics.jsonl", [row])
        row = {"step": step, "time_s": 1.0, "validation/accuracy": step / 500}
        append_jsonl(folder / "step2_sft" / "metrics.jsonl", [row])
        row = {"step": step, "time_s": 1.0, "grpo/accuracy": 0.9, "validation/accuracy": 0.8}
        append_jsonl(folder / "step3_GRPO" / "metrics.jsonl", [row])


@pytest.fixture
def full_run(tmp_path):
    folder = write_run(
        tmp_path / "made_up",
        scored("step0_baseline", 8),
        SEARCH,
        scored("step2_sft", 48, data=DATA | {"sft_files_duplicates": LEAKED}),
        scored("step3_GRPO", 56, commit="def5678"),
    )
    add_curves(folder)
    return folder


def test_report_json_has_exactly_its_schema(full_run):
    path = write_report(full_run)
    assert path == full_run / "report.json"
    report = read_json(path)
    assert set(report) == {"profile", "test_set", "stages", "whole_gain", "variants"}
    assert report["profile"] == "tiny"
    assert report["test_set"] == {"n": N, "sha256": "a" * 64}
    assert [entry["stage"] for entry in report["stages"]] == list(STAGES)
    for entry in report["stages"]:
        if entry["stage"] == SEARCH_STAGE:
            assert set(entry) == {
                *("stage", "trials", "pruned", "failed", "best", "difference", "busy", "wall_s"),
            }
            assert entry == {key: SEARCH[key] for key in entry}
            continue
        source = read_json(full_run / entry["stage"] / "outcome.json")
        improvement = entry.pop("improvement")
        assert improvement is None or set(improvement) == {
            *("points", "ci95", "won", "lost", "p_value", "said"),
        }
        assert set(entry) == {
            *("stage", "n", "accuracy", "accuracy_ci95", "format_rate", "outcomes"),
            *("accuracy_well_formed", "accuracy_anywhere", "wall_s", "checkpoint"),
        }
        assert entry == {key: source[key] for key in entry}


def test_improvement_is_over_the_scored_stage_before(tmp_path):
    folder = write_run(
        tmp_path / "run",
        scored("step0_baseline", 40),
        SEARCH,
        scored("step2_sft", 60),
        scored("step3_GRPO", 60),
    )
    first, _, second, third = read_json(write_report(folder))["stages"]
    assert first["improvement"] is None
    assert second["improvement"]["points"] == pytest.approx(25.0)
    # 20 problems of 80 won and none lost: the smallest p there is for 20 disagreements.
    assert (second["improvement"]["won"], second["improvement"]["lost"]) == (20, 0)
    assert second["improvement"]["p_value"] == pytest.approx(2 / 2**20)
    low, high = second["improvement"]["ci95"]
    assert 16 < low < 25 < high < 36
    assert "20 won, 0 lost" in second["improvement"]["said"]
    assert third["improvement"]["points"] == 0
    low, high = third["improvement"]["ci95"]
    assert low == pytest.approx(-high)


def test_markdown_states_the_table_the_conditions_and_the_figure(full_run):
    write_report(full_run)
    text = (full_run / "report.md").read_text()
    assert text.startswith("# Results of run made_up (profile tiny)\n")
    row = next(line for line in text.splitlines() if line.startswith("| step2_sft"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["step2_sft", "80", "60.0", "[10.0, 90.0]", "95.0"]
    assert cells[5:11] == ["63.2", "62.5", "48", "27", "4", "1"]
    assert cells[11].startswith("+50.0 points [+")
    assert cells[12:] == ["1.5", "`step2_sft/checkpoints/step_000050`"]
    header, rule = text.splitlines()[2:4]
    assert header.count("|") == rule.count("|") == row.count("|")
    assert (
        "step1_sft_hyper: 8 trials, 3 pruned, 1 failed, 10.0 minutes; trainer busy 62%, engine "
        "81%; best is trial 5 (validation_accuracy 0.375 when searched), 36.0 % (31.9 to 40.3) of "
        "all 500 validation problems: train.learning_rate = 0.0001235, train.batch_size = 16; the "
        "optimum is flat: best and worst of those scored again differ by 1.2 points (-4.7 to 7.1)"
    ) in text
    assert "](step1_sft_hyper/study.png)" in text
    assert "From step0_baseline to step3_GRPO: +60.0 points [" in text
    assert "So +0.0 points of the gain are format" in text
    for stated in ("a" * 64, "b" * 64, "temperature = 1.0", "abc1234; def5678", "2 cores"):
        assert stated in text
    assert (
        "- Data: 1,600 train, 120 validation, 80 test problems; left out 2 rows without an answer "
        "and 3 that repeat a test or an earlier problem; 251 training and validation problems the "
        "same but for their numbers, 0 of them left out; 2 rows of sft.files holding a held-out "
        "problem whole, 2 of them left out"
    ) in text
    assert "](report.png)" in text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"test_set": {"n": N, "sha256": "f" * 64}}, "test_set"),
        ({"prompt_sha256": "f" * 64}, "prompt_sha256"),
        ({"sampling": {"temperature": 0.0}}, "sampling"),
        ({"n": N - 1}, "n"),
        ({"profile": "full"}, "profile"),
    ],
)
def test_stages_on_different_yardsticks_are_refused(tmp_path, change, named):
    changed = scored("step3_GRPO", 30, **change)
    folder = write_run(tmp_path / "run", scored("step0_baseline", 8), SEARCH, changed)
    with pytest.raises(ValueError, match="cannot stand in one table") as refusal:
        write_report(folder)
    message = str(refusal.value)
    assert f"step0_baseline: {named} {scored('step0_baseline', 8)[named]}" in message
    assert f"step3_GRPO: {named} {changed[named]}" in message
    assert "Evaluate them again" in message
    assert not list(folder.glob("report.*"))


@pytest.mark.parametrize(
    "stages",
    [("step0_baseline",), ("step2_sft", "step3_GRPO"), ("step0_baseline", "step3_GRPO")],
)
def test_a_partial_pipeline_reports_what_there_is(tmp_path, stages):
    folder = write_run(tmp_path / "run", *(scored(stage, 20) for stage in stages))
    report = read_json(write_report(folder))
    assert [entry["stage"] for entry in report["stages"]] == list(stages)
    assert report["stages"][0]["improvement"] is None
    assert SEARCH_STAGE not in (folder / "report.md").read_text()
    assert (folder / "report.png").stat().st_size > 10_000


def test_a_search_alone_is_reported_without_accuracies(tmp_path):
    folder = write_run(tmp_path / "run", SEARCH)
    report = read_json(write_report(folder))
    assert report["profile"] == "tiny"
    assert report["test_set"] is None
    assert "No stage was evaluated." in (folder / "report.md").read_text()
    assert (folder / "report.png").is_file()


def test_a_folder_without_stages_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no finished stage.*run a stage first"):
        write_report(tmp_path)


@pytest.mark.parametrize("correct", [0, N - 5])
@pytest.mark.parametrize("format_rate", [0.0, 1.0])
def test_extreme_rates_can_be_drawn(tmp_path, correct, format_rate):
    interval = list(wilson_interval(correct, N))
    outcome = scored("step0_baseline", correct, format_rate=format_rate, accuracy_ci95=interval)
    write_report(write_run(tmp_path / "run", outcome))
    assert (tmp_path / "run" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_figure_shows_every_point_of_the_curves(full_run, monkeypatch):
    """SFT and GRPO share an axis; the first one drawn must not fix its range."""
    figures = []
    save = Figure.savefig

    def keep(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    # A resumed stage logs a step again; the later value counts.
    append_jsonl(
        full_run / "step2_sft" / "metrics.jsonl", [{"step": 50, "validation/accuracy": 0.4}]
    )
    write_report(full_run)
    _, sft, grpo = figures[0].axes
    assert [list(line.get_xdata()) for line in sft.lines] == [[10, 20, 30, 40, 50]]
    assert list(sft.lines[0].get_ydata()) == [0.02, 0.04, 0.06, 0.08, 0.4]
    assert {line.get_label() for line in grpo.lines} == {"grpo accuracy", "validation accuracy"}
    for axes in (sft, grpo):
        bottom, top = axes.get_ylim()
        assert bottom == 0
        assert top > 0.9


def test_the_page_is_one_file_that_asks_for_nothing(full_run):
    write_report(full_run)
    page = (full_run / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "@@" not in page
    # Model output cannot end the script element that holds it.
    assert page.count("</script>") == 2
    embedded = page.split('id="data">')[1].split("</script>")[0]
    data = json.loads(embedded)
    assert [entry["stage"] for entry in data["stages"]] == [s for s in STAGES if s != SEARCH_STAGE]
    assert len(data["problems"]) == N
    assert data["problems"][0]["answers"].keys() == {s for s in STAGES if s != SEARCH_STAGE}
    assert data["problems"][0]["answers"]["step2_sft"]["completion"] == "</script><b>x"
    assert {chart["title"] for chart in data["curves"]} >= {"SFT loss", "GRPO accuracy"}
    assert data["breakdown"][0]["groups"][0]["cells"][1]["correct"] == 48


@pytest.mark.parametrize(
    ("objective", "best"),
    [
        ("validation_accuracy", [[0, 0.4], [1, 0.5], [3, 0.5]]),
        ("eval_loss", [[0, 0.4], [1, 0.4], [3, 0.3]]),
    ],
)
def test_the_best_trial_so_far_is_the_one_of_least_loss_where_loss_is_searched(
    tmp_path, objective, best
):
    search = SEARCH | {"best": SEARCH["best"] | {"objective": objective}}
    folder = write_run(tmp_path / "searched", search)
    (folder / SEARCH_STAGE / "trials.csv").write_text(
        "number,state,value\n0,COMPLETE,0.4\n1,COMPLETE,0.5\n2,PRUNED,0.1\n3,COMPLETE,0.3\n"
    )
    write_report(folder)
    page = (folder / "report.html").read_text()
    (chart,) = json.loads(page.split('id="data">')[1].split("</script>")[0])["curves"]
    assert {line["name"]: line["points"] for line in chart["series"]} == {
        "complete": [[0, 0.4], [1, 0.5], [3, 0.3]],
        "pruned": [[2, 0.1]],
        "best so far": best,
    }


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/one/results/tiny/step2_sft/checkpoints/step_6", "step2_sft/checkpoints/step_6"),
        ("/another/place/step2_sft/checkpoints/step_6", "step2_sft/checkpoints/step_6"),
        ("/one/assets/tiny_base", "assets/tiny_base"),
        ("Qwen/Qwen2.5-Math-1.5B", "Qwen/Qwen2.5-Math-1.5B"),
    ],
)
def test_a_run_that_was_moved_has_the_same_report(path, shown):
    assert _shown_checkpoint(path) == shown

"""The store of checkpoints: what is kept, which is chosen, what a failed write leaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.training.checkpoints import (
    CheckpointStore,
    DamagedCheckpointError,
    Score,
    verify_checkpoint,
)


def write_weights(folder):
    (folder / "w").write_text("x")


def test_checkpoints_are_kept_by_rule(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    saved = [store.save(step, step * 8, write_weights) for step in (1, 2, 3, 4)]
    assert [item.step for item in store.unscored()] == [1, 2, 3, 4]
    for checkpoint, score in zip(saved[:3], (0.1, 0.9, 0.2), strict=True):
        store.record(checkpoint, Score(score))
    left = {path.name for path in tmp_path.glob("step_*")}
    assert left == {"step_000002", "step_000003", "step_000004"}  # best, latest, not yet scored
    assert store.chosen() == saved[1]
    assert CheckpointStore(tmp_path, keep=1).chosen() == saved[1]
    assert [score.accuracy for score in store.scores()] == [0.1, 0.9, 0.2]


def test_among_equal_accuracies_format_and_then_loss_decide(tmp_path):
    store = CheckpointStore(tmp_path, keep=5)
    scores = [Score(0.2, 0.3, -1.0), Score(0.2, 0.5, -1.2), Score(0.2, 0.5, -1.1), Score(0.1, 0.9)]
    for step, score in enumerate(scores, 1):
        store.record(store.save(step, step, write_weights), score)
    assert store.chosen().step == 3


def scored_in_turn(folder, rows):
    """Record checkpoints of which each problem is known to be right; return the steps chosen."""
    store = CheckpointStore(folder, keep=1, choice="latest_near_highest")
    steps = []
    for step, shares in enumerate(rows):
        accuracy = sum(shares) / len(shares)
        store.record(store.save(step, step, write_weights), Score(accuracy, shares=shares))
        steps.append(store.chosen().step)
    again = CheckpointStore(folder, keep=1, choice="latest_near_highest")
    assert again.chosen() == store.chosen()
    return steps


def shares(*wrong):
    return [float(problem not in wrong) for problem in range(20)]


def test_the_latest_is_chosen_that_lies_one_standard_error_below_the_highest(tmp_path):
    # One lost: 1 <= 1. Two lost: 4 > 2. Three lost and one won: 4 <= 4.
    assert scored_in_turn(tmp_path / "one", [shares(1, 2), shares(1), shares(1, 2)]) == [0, 1, 2]
    assert scored_in_turn(tmp_path / "two", [shares(1), shares(1, 2, 3), shares(4)]) == [0, 0, 2]
    rows = [shares(1), shares(2, 3, 4), shares(2, 3, 4, 5)]
    assert scored_in_turn(tmp_path / "others", rows) == [0, 1, 1]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [shares(1, 2), shares(1)],
            "step 1 goes on to test, one of 2 scored: validation 95.0 %, the ",
        ),
        (
            [shares(1), shares(2, 3), shares(1, 2, 3, 4)],
            "validation 90.0 %; the highest, 95.0 % at step 0, is within its error",
        ),
    ],
)
def test_the_choice_is_told(tmp_path, caplog, rows, says):
    caplog.set_level("INFO")
    scored_in_turn(tmp_path, rows)
    CheckpointStore(tmp_path, keep=1, choice="latest_near_highest").choose()
    assert says in caplog.text


def test_scores_without_problems_are_compared_by_accuracy(tmp_path):
    store = CheckpointStore(tmp_path, keep=5, choice="latest_near_highest")
    for step, accuracy in enumerate((0.5, 0.6, 0.6, 0.55)):
        store.record(store.save(step, step, write_weights), Score(accuracy))
    assert store.chosen().step == 2


@given(
    rows=st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=6, max_size=6), min_size=1, max_size=6
    )
)
@settings(max_examples=60, deadline=None)
def test_an_earlier_choice_never_comes_back(tmp_path_factory, rows):
    steps = scored_in_turn(tmp_path_factory.mktemp("store"), rows)
    assert steps == sorted(steps)
    accuracies = [sum(row) for row in rows]
    highest = rows[accuracies.index(max(accuracies))]

    def near(row):
        below = np.array(highest) - np.array(row)
        return below.mean() <= np.sqrt((below**2).mean() / len(row)) * (1 + 1e-12)

    assert steps[-1] == max(
        step for step, row in enumerate(rows) if sum(row) == max(accuracies) or near(row)
    )


def test_a_failed_write_leaves_no_checkpoint(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)

    def fail(folder):
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.save(1, 8, fail)
    assert store.unscored() == []


def test_the_newest_checkpoint_alone_carries_the_training_state(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    for step in (1, 2):
        store.save(step, step, write_weights, {"step": step})
    assert [file.parent.name for file in tmp_path.glob("*/training_state.pt")] == ["step_000002"]
    assert store.load_training_state() == {"step": 2}


def test_damaged_files_are_noticed(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    checkpoint = store.save(1, 1, write_weights, {"step": 1})
    verify_checkpoint(checkpoint.folder)
    (checkpoint.folder / "w").write_text("y")
    with pytest.raises(DamagedCheckpointError, match="is not what was written"):
        verify_checkpoint(checkpoint.folder)
    (checkpoint.folder / "w").unlink()
    with pytest.raises(DamagedCheckpointError, match="is missing"):
        verify_checkpoint(checkpoint.folder)
    state = checkpoint.folder / "training_state.pt"
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(DamagedCheckpointError, match="start over"):
        store.load_training_state()

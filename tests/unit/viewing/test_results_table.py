"""The results table fits 80 columns, and says more where there is room."""

from __future__ import annotations

import pytest

from src.run import terminal
from src.viewing import results_table
from src.viewing.results_table import show_results

GAIN = {"points": 27.4, "ci95": [24.0, 30.8], "won": 1325, "lost": 51, "p_value": 0.0001}


def entry(stage, gain):
    return {
        **{"stage": stage, "n": 1000, "accuracy": 0.535, "accuracy_ci95": [0.504, 0.566]},
        **{"format_rate": 0.992, "accuracy_anywhere": 0.536, "accuracy_well_formed": 0.539},
        **{"improvement": gain, "wall_s": 2196.0},
    }


REPORT = {"stages": [entry("step0_baseline", None), entry("step2_sft", GAIN)]}


@pytest.mark.parametrize(("width", "more"), [(80, False), (120, True)])
def test_the_table_fits(width, more, monkeypatch, capsys):
    for module, name in ((terminal, "columns_of"), (results_table, "columns")):
        monkeypatch.setattr(module, name, lambda _: width)
    show_results(REPORT)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= width
    for figure in ("1,000 test problems", "53.5 [50.4, 56.6]", "+27.4 [+24.0, +30.8]", "36.6"):
        assert figure in said
    assert ("< 0.001" in said) == ("1,325" in said) == more

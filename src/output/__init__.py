"""What a run gives out beside its files: lines for a terminal, event files for TensorBoard.

Knows no configuration and no run; everything above may use it.

Read first: `streams`.
"""

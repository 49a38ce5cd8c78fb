"""What a run gives out: lines for a terminal, tables in Markdown, event files for TensorBoard.

Knows no configuration and no run; everything above may use it.

Read first: `streams`.
"""

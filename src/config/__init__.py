"""The typed settings that every stage reads, and how files and `--set` become one of them.

Imports nothing else of `src`, and no model library: `--help`, `--dry-run` and mistakes in the
configuration answer at once.

Read first: `schema.Config`.
"""

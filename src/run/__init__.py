"""A stage's folder, its processes and what it records: files, locks, metrics, W&B, terminal.

May import `src.config` and `src.data`. Whatever reads or sets an environment variable is in
`processes`.

Read first: `directory.Run`.
"""

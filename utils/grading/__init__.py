"""Whether an answer equals its reference: read, compared exactly, by structure, by symbols.

Read first: `equality.compare`; README.md here says what counts as equal.
"""

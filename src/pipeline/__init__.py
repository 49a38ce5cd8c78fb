"""The four steps as one run: which hardware they are laid out for, and how step 3 is launched.

May import all of the packages below it, from `src.config` to `src.stages`.

Read first: `launching.chosen_hardware`.
"""

"""Tables in Markdown."""

import doctest

from src.output import markdown


def test_docstring_examples():
    assert doctest.testmod(markdown).failed == 0

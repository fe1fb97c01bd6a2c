"""Tests of `errors`."""

from __future__ import annotations

from pybeethoven.errors import brief


def test_terms_are_shown_briefly() -> None:
    """An error has at most 200 characters of a term, and the type of one that Python can't show."""
    assert brief((1, "a")) == "(1, 'a')"
    assert brief("x" * 1000) == repr("x" * 1000)[:200]
    assert brief(10**5000) == "a int too large to show"

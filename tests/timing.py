"""One unit of time for all tests, so that a slow machine needs one setting."""

import os

UNIT = float(os.environ.get("PYBEETHOVEN_TEST_UNIT", "1.0"))
"""Seconds; every time-out in the tests is a multiple of it."""

"""hypothesis without its stopwatch and its folder of old examples: tests run beside other load."""

from __future__ import annotations

import hypothesis


def given(*strategies):
    def decorate(test):
        return hypothesis.settings(deadline=None, database=None)(hypothesis.given(*strategies)(test))

    return decorate

"""The beginning of a value in one harmless line, whatever the value does when it is shown."""

from __future__ import annotations

import math
import operator
import reprlib
from typing import Any

from .text import clean

LIMIT = 200  # characters
# Python refuses to write an int of more than 4300 digits; long before that nobody reads it.
_BITS_SHOWN = 600


class _Preview(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 30
        self.maxstring = self.maxother = self.maxdeque = self.maxarray = LIMIT

    def repr_int(self, value: int, level: int) -> str:
        return repr(value) if value.bit_length() <= _BITS_SHOWN else _large(value)

    def repr_instance(self, value: Any, level: int) -> str:
        try:
            return repr(value)[: 2 * LIMIT]
        except ValueError:
            if not hasattr(type(value), "__index__"):
                raise
            return _large(operator.index(value))


def _large(value: int) -> str:
    """`-1.2345678e+5000 (an int of 16610 bits)`: the size of an int without writing it out."""
    bits = value.bit_length()
    shift = bits - 64
    exponent = math.log10(abs(value) >> shift) + shift * math.log10(2)
    lead = f"{10 ** (exponent % 1):.7f}"
    return f"{'-' if value < 0 else ''}{lead}e+{int(exponent)} (an int of {bits} bits)"


def preview(value: object) -> str:
    """One clean line of at most 200 characters; never raises an Exception."""
    try:
        return clean(_Preview().repr(value), LIMIT)
    except Exception as error:
        return clean(f"<{type(value).__name__}: its repr raised {type(error).__name__}>", LIMIT)

"""Text from outside does nothing to a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import strategies as st

from chances import given
from dsage_spool.text import clean, clean_lines

HOSTILE = [
    "\x1b[2J", "\x1b]52;c;aGk=\x07", "\x9b31m", "\x07", "\b", "\r", "\x7f", "\0", "\x85", "\u202e", "\u2066",
    "\u200b", "\u200d", "\ufeff", "\u2028", "\u2029", "\u061c", "\u00ad", "\U000e0041", "\ud800", "\ufff9",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_hostile_character_becomes_a_question_mark(text):
    for made in (clean(f"a{text}b"), clean_lines(f"a{text}b")):
        assert text[0] not in made and made.startswith("a?") and made.endswith("b")


@given(st.text())
def test_nothing_that_is_left_can_steer_a_terminal(text):
    for made in (clean(text, 10_000), clean_lines(text).replace("\n", "").replace("\t", "")):
        assert not [char for char in made if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
        assert not [char for char in made if unicodedata.bidirectional(char) in BIDI]


BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(st.text(), st.integers(1, 50))
def test_a_line_is_one_line_of_bounded_length(text, limit):
    made = clean(text, limit)
    assert "\n" not in made and len(made) <= limit


@given(st.text())
def test_cleaning_twice_changes_nothing(text):
    assert clean(clean(text)) == clean(text)
    assert clean_lines(clean_lines(text)) == clean_lines(text)


@pytest.mark.parametrize("text", ["", "x^2 + y", "Gröbner 基底 ℤ[√2] ∑ 😀", "[/x] <b> %s"])
def test_harmless_text_stays_as_it_is(text):
    assert clean(text) == clean_lines(text) == text


def test_lines_and_tabs_stay_in_text_of_several_lines():
    assert clean_lines("a\tb\r\nc\nd\x1b") == "a\tb\nc\nd?"
    assert clean("a\tb\nc") == "a?b?c"


def test_a_long_line_shows_that_it_was_cut():
    assert clean("x" * 600) == "x" * 499 + "…"

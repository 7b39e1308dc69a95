"""Which jobs a worker claims: rows of what is queued and held, and what is chosen."""

from __future__ import annotations

import pytest

from dsage_spool import names
from dsage_spool.queuefile import Next
from dsage_spool.worker.choose import PATIENCE, Chooser


def key(word: str) -> tuple[str, int]:
    """`a` is the first attempt at job a, `a2` its second."""
    return names.make_job(1_795_389_700 + ord(word[0]), b"1234"), int(word[1:] or 1)


def keys(words: str) -> list[tuple[str, int]]:
    return [key(word) for word in words.split()]


def row(word: str, *needs: str) -> Next:
    return Next(*key(word), 0, "alice", needs)


def rows(words: str) -> list[Next]:
    return [row(word) for word in words.split()]


@pytest.fixture
def chooser():
    return Chooser(frozenset())


@pytest.mark.parametrize("queued, held, room, chosen", [
    ("a b c", "", 2, "a b"),
    ("a b c", "d", 1, "a"),
    ("", "", 2, ""),
    ("a", "", 0, ""),
    ("a2", "", 0, ""),
    # a second attempt alone
    ("a2", "", 2, "a2"),
    ("a2 b", "", 2, "a2"),
    ("a2 b2", "", 2, "a2"),
    ("a7 b", "", 2, "a7"),
    # nothing beside it
    ("b c", "a2", 1, ""),
    ("b2", "a2", 1, ""),
    ("b", "a2 c", 1, ""),
    # and it beside nothing
    ("a2", "b", 1, ""),
    ("a2 b2", "c", 1, ""),
    # meanwhile others
    ("a2 b c", "d", 2, "b c"),
    ("b a2 c", "", 3, "b c"),
    ("b a2 c2", "", 3, "b"),
])  # fmt: skip
def test_a_second_attempt_is_taken_alone(chooser, queued, held, room, chosen):
    assert chooser.choose(rows(queued), room, set(), set(keys(held)), 0.0) == keys(chosen)


@pytest.mark.parametrize("queued, held, chosen", [
    ("a2 b c", "d", ""),  # what runs ends first
    ("b a2 c", "d", "b"),  # what stands before it goes before it
    ("a2 b c", "", "a2"),
])  # fmt: skip
def test_a_busy_worker_empties_itself_for_one_that_has_waited(chooser, queued, held, chosen):
    def choose(now: float):
        return chooser.choose(rows(queued), 3, set(), set(keys(held)), now)

    assert chooser.choose(rows(queued), 3, set(), set(keys("d")), 0.0) == keys("b c")
    assert chooser.choose(rows(queued), 3, set(), set(keys("d")), PATIENCE) == keys("b c")
    assert choose(PATIENCE + 1) == keys(chosen)


def test_patience_begins_anew_for_another_attempt(chooser):
    held = set(keys("d"))
    chooser.choose(rows("a2 b"), 3, set(), held, 0.0)
    assert chooser.choose(rows("a3 b"), 3, set(), held, PATIENCE + 1) == keys("b")
    assert chooser.choose(rows("a3 b"), 3, set(), held, 2 * PATIENCE + 2) == []


def test_nobody_waits_for_an_attempt_that_another_worker_took(chooser):
    held = set(keys("d"))
    chooser.choose(rows("a2 b"), 3, set(), held, 0.0)
    assert chooser.choose(rows("a2 b"), 3, set(keys("a2")), held, PATIENCE + 1) == keys("b")


def test_what_this_worker_cannot_run_holds_nothing_up():
    chooser = Chooser(frozenset({"gpu"}))
    queued = [row("a2", "sage"), row("b", "gpu"), row("c", "sage")]
    for now in (0.0, PATIENCE + 1):
        assert chooser.choose(queued, 3, set(), set(keys("d")), now) == keys("b")

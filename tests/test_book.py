"""The order in which jobs are run, and what the server remembers of them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st

from chances import given
from dsage_spool import names
from dsage_spool.queuefile import LINES_PER_NEEDS, finish, parse
from dsage_spool.records import Envelope
from dsage_spool.server.book import HALF_LIFE, Book, Entry, Use
from dsage_spool.states import State

WALL = 1_795_389_700.0


def entry(number: int, owner: str = "alice", **fields) -> Entry:
    job = names.make_job(WALL + number, number.to_bytes(4, "big"))
    return Entry(Envelope("spool", job, owner, "source", **fields), b"")


def book_of(*entries: Entry) -> Book:
    book = Book()
    for one in entries:
        book.add(one)
    return book


def order(book: Book, wall: float = WALL, **how) -> list[Entry]:
    return list(book.order(wall, **how))


def run_first(book: Book, wall: float, seconds: float) -> Entry:
    """One slot takes what stands first, and is done with it `seconds` later."""
    taken = next(book.order(wall))
    taken.since = wall
    book.move(taken, State.RUNNING)
    book.use_of(taken.owner).charge(seconds, wall + seconds)
    book.move(taken, State.DONE)
    return taken


def test_jobs_of_one_owner_run_in_order_of_submission():
    entries = [entry(number) for number in (3, 1, 2)]
    assert [one.job for one in order(book_of(*entries))] == sorted(one.job for one in entries)


def test_priority_comes_before_all_else():
    urgent, normal, idle = entry(3, priority=5), entry(2), entry(1, priority=-5)
    book = book_of(idle, normal, urgent)
    book.use_of("alice").charge(1e9, WALL)
    assert order(book) == [urgent, normal, idle]


def test_the_owner_with_the_least_recent_use_comes_first():
    book = book_of(entry(1, "alice"), entry(2, "bob"))
    assert [one.owner for one in order(book)] == ["alice", "bob"]
    book.use_of("alice").charge(10, WALL)
    assert [one.owner for one in order(book)] == ["bob", "alice"]


def test_a_flood_does_not_delay_anothers_first_job_by_more_than_one_job():
    book = book_of(*(entry(number, "alice") for number in range(10_000)))
    wall = WALL
    for _ in range(3):  # the flood is well under way
        assert run_first(book, wall, 10).owner == "alice"
        wall += 10
    latecomer = entry(20_000, "bob")
    book.add(latecomer)
    ran = [run_first(book, wall + 10 * turn, 10) for turn in range(2)]
    assert latecomer in ran
    assert order(book)[0].owner == "alice"  # and the flood goes on


def test_a_flood_that_came_first_stands_behind_a_single_job_in_the_queue_file():
    book = book_of(*(entry(number, "alice") for number in range(10_000)), entry(20_000, "bob"))
    assert "bob" in [one.owner for one in order(book)][:2]


def test_owners_take_turns_by_how_long_their_jobs_take():
    book = book_of(*(entry(n, "alice") for n in range(40)), *(entry(n, "bob") for n in range(100, 140)))
    book.use_of("alice").charge(30, WALL)
    book.use_of("bob").charge(10, WALL)
    book.use_of("bob").seconds = 30  # the same use, but each job of bob's is a third as long
    shares = Counter(one.owner for one in order(book)[:40])
    assert shares["bob"] == pytest.approx(30, abs=2)


def test_what_runs_counts_before_it_has_ended():
    book = book_of(entry(1, "alice"), entry(2, "alice"), entry(3, "bob"))
    first = order(book)[0]
    first.since = WALL
    book.move(first, State.RUNNING)
    assert order(book, WALL + 100)[0].owner == "bob"


def test_use_fades_by_half_in_a_day():
    use = Use()
    use.charge(100, WALL)
    assert use.now(WALL) == 100
    assert use.now(WALL + HALF_LIFE) == pytest.approx(50)
    assert use.now(WALL - 1000) == 100  # a clock that was set back makes nobody richer


@pytest.mark.parametrize("count", [1, LINES_PER_NEEDS, 5 * LINES_PER_NEEDS])
def test_each_kind_of_needs_has_its_bounded_share_of_lines(count):
    plain = [entry(number) for number in range(count)]
    special = [entry(90_000, needs=("gpu",))]
    counts = Counter(one.needs for one in order(book_of(*plain, *special)))
    assert counts == {(): min(count, LINES_PER_NEEDS), ("gpu",): 1}


def test_the_bound_holds_over_priorities_and_owners():
    entries = [entry(n, owner, priority=n % 3) for n, owner in enumerate(["alice", "bob", "carol"] * 50)]
    found = order(book_of(*entries), per_needs=20)
    assert len(found) == 20
    assert {one.priority for one in found} == {2}


OWNERS = st.sampled_from(["alice", "bob", "carol"])
JOBS = st.lists(
    st.tuples(OWNERS, st.integers(-1, 1), st.sampled_from([(), ("gpu",)]), st.floats(0, 100)), max_size=30
)


@given(JOBS, st.integers(1, 40))
def test_the_order_is_complete_up_to_the_bound_and_nobody_is_in_it_twice(rows, bound):
    entries = [entry(n, o, priority=p, needs=needs) for n, (o, p, needs, _) in enumerate(rows)]
    book = book_of(*entries)
    for owner, _, _, use in rows:
        book.use_of(owner).charge(use, WALL)
    found = order(book, per_needs=bound)
    assert len({one.job for one in found}) == len(found)
    for needs in ((), ("gpu",)):
        there = sum(one.needs == needs for one in entries)
        assert sum(one.needs == needs for one in found) == min(there, bound)
    priorities = [one.priority for one in found]
    assert priorities == sorted(priorities, reverse=True)
    for owner in ("alice", "bob", "carol"):
        for priority in (-1, 0, 1):
            mine = [one.job for one in found if (one.owner, one.priority) == (owner, priority)]
            assert mine == sorted(mine)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(list(State)[1:])), max_size=40))
def test_counts_are_those_of_the_entries_whatever_moves(steps):
    entries = [entry(number, "alice" if number % 2 else "bob") for number in range(10)]
    book = book_of(*entries)
    for number, state in steps:
        if entries[number].job in book.entries:
            entries[number].run, entries[number].since = f"kiwi.{number}", WALL
            book.move(entries[number], state)
    live = Counter(str(one.state) for one in book.entries.values())
    for state in ("queued", "held", "running"):
        assert book.counts[state] == live[state]
    assert sum(book.counts.values()) == 10
    queued = {one.job for one in book.entries.values() if one.state is State.QUEUED}
    assert {one.job for one in order(book)} == queued
    assert sum(book.queued_by.values()) == len(queued)
    assert set().union(*book.by_run.values()) == {
        one.job for one in book.entries.values() if one.state is State.RUNNING
    }


def test_a_job_that_waits_is_not_offered_until_it_may_run():
    book, waiting = Book(), entry(1)
    book.add(waiting, offered=False)
    assert order(book) == [] and book.counts["queued"] == 1
    book.offer(waiting)
    book.offer(waiting)
    assert order(book) == [waiting]


def test_a_line_of_the_queue_file_follows_the_attempt():
    one = entry(1)
    assert parse(finish([one.next_line()])).next[0].attempt == 1
    book = book_of(one)
    book.move(one, State.RUNNING)
    book.move(one, State.QUEUED)
    one.attempt += 1
    assert parse(finish([one.next_line()])).next[0].attempt == 2


class Touched(str):
    """A job name that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other) -> bool:
        Touched.comparisons += 1
        return str.__lt__(self, other)


def test_moving_one_of_many_jobs_does_not_touch_the_others():
    entries = [entry(number) for number in range(5_000)]
    book = Book()
    for one in entries:
        one.job = Touched(one.job)
        book.add(one)
    Touched.comparisons = 0
    for one in entries[::500]:
        book.move(one, State.RUNNING)
    assert Touched.comparisons < 10 * 40


def test_the_order_of_many_jobs_looks_only_at_the_first_of_them():
    entries = [entry(number) for number in range(5_000)]
    book = Book()
    for one in entries:
        one.job = Touched(one.job)
        book.add(one)
    Touched.comparisons = 0
    assert len(order(book)) == LINES_PER_NEEDS
    assert Touched.comparisons < 10 * LINES_PER_NEEDS

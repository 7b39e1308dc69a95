"""The queue file: advice that is read by machines that its writer does not know."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from chances import given
from dsage_spool import queuefile
from dsage_spool.errors import BadFormat, BadVersion
from dsage_spool.queuefile import Next, Running

JOB = "20261122T232140-4k2m7qx9ab"
TITLES = st.text(max_size=80)


def text(*lines: str) -> bytes:
    return "\n".join([queuefile.FIRST, *lines, ""]).encode()


@given(TITLES, st.integers(-1000, 1000), st.lists(st.sampled_from(["gpu", "sympy=1.14", "memory=5"])))
def test_a_line_of_what_runs_next_is_read_as_it_was_written(title, priority, needs):
    row = Next(JOB, 3, priority, "alice", tuple(needs), title)
    [found] = queuefile.parse(text(queuefile.next_line(row))).next
    assert (found.job, found.attempt, found.priority, found.owner) == (JOB, 3, priority, "alice")
    assert found.needs == tuple(needs) and "\n" not in found.title and len(found.title) <= 60


@given(TITLES)
def test_a_line_of_what_runs_now_is_read_as_it_was_written(title):
    row = Running(JOB, 2, "kiwi", 1795389650.0, "alice", title)
    [found] = queuefile.parse(text(queuefile.running_line(row))).running
    assert (found.job, found.attempt, found.worker, found.since) == (JOB, 2, "kiwi", 1795389650.0)


def test_the_head_is_read_as_it_was_written():
    head = queuefile.head_lines(1795389700.4, "20261122.3", "box 4711", {"queued": 3, "done": 100_000})
    view = queuefile.parse("\n".join(head).encode())
    assert (view.written, view.journal, view.server) == (1795389700, "20261122.3", "box 4711")
    assert view.counts == {"queued": 3, "done": 100_000}


def test_the_numbers_of_an_owner_are_read_as_they_were_written():
    view = queuefile.parse(text(queuefile.owner_line("alice", {"queued": 2, "use": 311.2})))
    assert view.owners == {"alice": {"queued": 2, "use": 311.2}}


def test_the_journal_is_found_in_the_beginning_of_the_file():
    head = queuefile.head_lines(1795389700, "20261122.999999", "s" * 200, dict.fromkeys("abcdefg", 10**9))
    data = "\n".join(head).encode()[: queuefile.HEAD]
    assert queuefile.journal_of(data) == "20261122.999999"
    assert queuefile.journal_of(b"") == queuefile.journal_of(text("written: 5")) == ""


@pytest.mark.parametrize("line", [
    "next: too few", f"next: {JOB} x 0 alice - t", f"next: {JOB} 1 x alice - t", "next: ../../x 1 0 alice - t",
    "written: soon", "counts: queued=many", "counts: queued=inf", "counts: queued=nan", "counts: queued",
    "owner: alice use=lots", f"running: {JOB} 1 kiwi when alice t", "colour: red", "", ":", "next", "\x1b[2J",
    "written: " + "9" * 5000, f"next: {JOB} {'9' * 5000} 0 alice - t", f"next: {JOB} 1 0 alice -",
])  # fmt: skip
def test_a_line_that_cannot_be_read_is_passed_over(line):
    good = queuefile.next_line(Next(JOB, 1, 0, "alice", (), "t"))
    view = queuefile.parse(text(line, good))
    assert [row.job for row in view.next] == [JOB]


@given(st.lists(st.text(max_size=60), max_size=8), st.binary(max_size=200))
def test_no_lines_do_more_than_be_passed_over(lines, data):
    keys = ["written: ", "journal: ", "counts: ", "owner: ", "running: ", "next: ", "server: "]
    queuefile.parse(text(*(key + line for key in keys for line in lines)))
    queuefile.parse(text() + data)


@pytest.mark.parametrize("data", [b"", b"x", b"\xff", b"queue: 1\n"])
def test_another_file_is_refused(data):
    with pytest.raises(BadFormat, match="first line"):
        queuefile.parse(data)


def test_another_version_is_refused():
    with pytest.raises(BadVersion, match="another release"):
        queuefile.parse(b"dsage-spool-queue: 2\n")


def test_hostile_words_are_harmless_when_they_are_read():
    line = f"running: {JOB} 1 ki\x1bwi 5 al\u202eice ti\x07tle"
    [row] = queuefile.parse(text(line)).running
    assert (row.worker, row.owner, row.title) == ("ki?wi", "al?ice", "ti?tle")

"""The terminal views: calm at 80 columns, and harmless whatever stands in a spool."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from dsage_spool import names
from dsage_spool.client.snapshot import OwnerRow, Snapshot, WaitingRow, WorkerRow
from dsage_spool.client.story import Check, Excerpt, Story
from dsage_spool.errors import Unreachable
from dsage_spool.queuefile import Running
from dsage_spool.records import Envelope, Lease, Receipt
from dsage_spool.states import State
from dsage_spool.view import progress, screen, status, story, tables, words

NOW = 1795389700.0
SGR = re.compile(r"\x1b\[[0-9;]*m")
REDRAW = re.compile(r"\x1b\[\?25[lh]|\x1b\[[0-9]*[AGK]|\x1b\[2K|\r")
HOSTILE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
TRAPS = (
    "\x1b[2J", "\x1b]52;c;aGk=\x07", "\x1b]8;;http://x\x1b\\", "\x9b31m", "\u202e", "\u200b",
    "[/x]", "[bold]", "[link=x]", "\r", "\n", "\t", "\x00", "\ud800", ":smile:", "漢字", "e\u0301",
    "\ufe0f", "👩\u200d💻",
)  # fmt: skip
hostile = st.lists(st.sampled_from(TRAPS) | st.text(max_size=8), max_size=12).map("".join)
numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1e7)


def job(number: int, ago: float = 120) -> str:
    return names.make_job(NOW - ago, (number * 7919331 % 2**30).to_bytes(4, "big"))


def make_shot() -> Snapshot:
    shot = Snapshot("alice@box.lab:spool", "7q2m", NOW, "box 4711", 3.2, True)
    shot.counts = {"held": 0, "queued": 99990, "running": 2, "done": 17, "failed": 1}
    shot.workers = [
        WorkerRow("desk-7", "desk-7.lab", 2, 0, 190, False, "CPython 3.12.3", ()),
        WorkerRow("kiwi", "kiwi.lab", 4, 2, 12, True, "CPython 3.11.2", ()),
    ]
    shot.running = [
        Running(job(1), 1, "kiwi", NOW - 120, "alice", "factor(11^150+1)"),
        Running(job(2), 2, "kiwi", NOW - 7300, "bob", "ecm 11^150+1"),
    ]
    shot.waiting = [waiting(n) for n in range(30)]
    shot.owners = [OwnerRow("alice", 99990, 1, 311.2), OwnerRow("bob", 0, 1, 12)]
    return shot


def waiting(number: int, why: str = "waits for a free slot", title: str = "") -> WaitingRow:
    return WaitingRow(job(100 + number), 1, 0, "alice", title or f"curve {number}", (), why)


def make_story() -> Story:
    needs = ("python=cpython-3495",)
    envelope = Envelope("7q2m", job(1), "alice", "call", "factor(11^150+1)", needs, time_limit=120)
    told = Story(job(1), State.DONE, "spool", f"done/{job(1)}", NOW, NOW - 120, envelope)
    told.envelope_check = told.receipt_check = Check(True)
    told.leases = [
        Lease(job(1), 1, "desk", "desk.0", "desk.lab", NOW - 90, NOW - 60, "desk was not heard"),
        Lease(job(1), 2, "kiwi", "kiwi.0", "kiwi.lab", NOW - 50, NOW - 20, "delivered"),
    ]
    told.receipt = Receipt(
        "7q2m", job(1), 2, "e" * 64, "kiwi", "kiwi.0", "ok", value="{3: 1}", wall_seconds=29.5,
        cpu_seconds=29.1, peak_memory=35 << 20, host="kiwi.lab", python="3.11.2",
    )  # fmt: skip
    told.verdict = "2026-11-22T23:21:40Z done: {3: 1} (attempt 2 of 3 by kiwi, 29.5 s)"
    told.sizes = {"envelope": 312, "payload": 1200, "stdout": 40_000}
    told.outputs = {"stdout": Excerpt(40_000, ("curve 1", "curve 2"), ("curve 99",), 39_900)}
    return told


def show(shot: Snapshot, color: bool | None = None, width: int | None = None) -> str:
    out = io.StringIO()
    status.print_status(shot, out, color, width)
    return out.getvalue()


def tell(told: Story, color: bool | None = None, width: int | None = None) -> str:
    out = io.StringIO()
    story.print_story(told, out, color, width)
    return out.getvalue()


def assert_harmless(text: str, width: int = 80, redraws: bool = False) -> None:
    bare = SGR.sub("", text)
    bare = REDRAW.sub("\n", bare) if redraws else bare
    assert not HOSTILE.search(bare), repr(HOSTILE.search(bare))
    assert all(cell_len(line) <= width for line in bare.split("\n"))


# -- status ------------------------------------------------------------------------------------

PAGE = """\
alice@box.lab:spool                               server box 4711  wrote 3 s ago
99,990 queued   2 running
17 done   1 failed

Workers  1 alive, 2 of 4 slots busy, 1 gone
  kiwi    alive  2 of 4 busy   heard 12 s ago  CPython 3.11.2  kiwi.lab
  desk-7  gone                heard 3 min ago  CPython 3.12.3  desk-7.lab

Running  2 jobs
  000007hnq3  alice  on kiwi  2 min  factor(11^150+1)
  00000f3be6  bob    on kiwi    2 h  ecm 11^150+1  (attempt 2)

Waiting  99,990 jobs
"""


def test_the_page_looks_like_this_at_80_columns():
    assert show(make_shot()).startswith(PAGE)


def test_long_backlogs_are_counted_and_not_listed():
    text = show(make_shot())
    assert "… and 99,980 more" in text and "curve 9" in text and "curve 10" not in text
    assert len(text.splitlines()) < 35


def test_a_reason_further_down_is_shown_too():
    shot = make_shot()
    shot.waiting[20] = waiting(20, "kiwi lacks gpu", "needs a card")
    assert re.search(r"kiwi lacks gpu\n +21 .* needs a card\n", show(shot))


def test_a_hundred_workers_fit_on_a_page():
    shot = make_shot()
    shot.workers = [
        WorkerRow(f"node{n:03}", "h" * 60, 8, n % 9, n, n % 3 > 0, "CPython 3.11.2", ())
        for n in range(100)
    ]
    shot.waiting = [waiting(1, "; ".join(f"node{n:03} lacks gpu" for n in range(100)))]
    text = show(shot)
    assert "… and 90 more, 34 of them gone" in text and "and so for 98 more workers" in text
    assert len(text.splitlines()) < 35
    assert_harmless(text)


def test_a_new_spool_says_what_to_type():
    text = show(Snapshot("spool", "7q2m", NOW))
    assert "nothing here yet: dsage-spool submit '2+2'" in text
    assert "dsage-spool server" in text and "Workers" not in text


def test_a_silent_server_is_told_with_the_remedy():
    shot = replace(make_shot(), server_alive=False, server_age=4 * 3600.0)
    text = show(shot)
    assert "server box 4711 silent for 4 h" in text
    assert "nothing moves until a server runs" in text


def test_jobs_whose_tails_are_alike_are_shown_by_their_whole_names():
    one, two, three = "20261122T232140-aaaaaaaaaa", "20261122T232141-aaaaaaaaaa", job(3)
    assert words.short_names([one, two, three]) == {one: one, two: two, three: three[16:]}


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 132, 200])
def test_every_width_is_kept(width):
    assert_harmless(show(make_shot(), True, width), width)
    assert_harmless(tell(make_story(), True, width), width)


def test_a_long_title_is_cut_and_wide_characters_count_twice():
    shot = make_shot()
    shot.running = [replace(shot.running[0], title="漢字" * 60)]
    line = next(line for line in show(shot).split("\n") if "漢" in line)
    assert line.endswith("…") and cell_len(line) <= 80


def test_ages_are_in_one_unit():
    ages = [0.9, 3, 59.9, 60, 3599, 3600, 47 * 3600, 48 * 3600, -5, float("nan"), None]
    told = ["0 s", "3 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 d", "0 s", "?", "?"]
    assert [words.age(seconds) for seconds in ages] == told


def test_sizes_and_spans_are_short():
    assert [words.size(n) for n in (0, 312, 1200, 9_960, 999_600, 35e6, 5e15)] == [
        "0 B", "312 B", "1.2 kB", "10 kB", "1.0 MB", "35 MB", "5,000 TB",
    ]  # fmt: skip
    assert [words.span(s) for s in (0.24, 12.34, 125, 7384)] == [
        "0.24 s", "12.3 s", "2 min 5 s", "2 h 3 min",
    ]  # fmt: skip


# -- colour ------------------------------------------------------------------------------------


def test_a_file_that_is_no_terminal_gets_no_escape():
    assert "\x1b" not in show(make_shot()) and "\x1b" not in tell(make_story())


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_a_terminal_gets_colour_and_no_color_takes_it_away(terminal, monkeypatch):
    assert screen.may_colour(terminal, None) and not screen.may_colour(terminal, False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not screen.may_colour(terminal, None) and screen.may_colour(terminal, True)
    status.print_status(make_shot(), terminal)
    assert "\x1b" not in terminal.getvalue()


def test_a_dumb_terminal_gets_no_colour(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert not screen.may_colour(terminal, None) and not screen.can_redraw(terminal)


def test_colour_changes_no_letter():
    assert re.sub(" +\n", "\n", SGR.sub("", show(make_shot(), True))) == show(make_shot(), False)


def test_the_whole_page_holds_for_long_names_of_hosts():
    shot = make_shot()
    shot.workers[1] = replace(shot.workers[1], host="kiwi.mathematics.uni-example.edu")
    assert "CPython 3.11.2  kiwi.mathematics…" in show(shot)


def test_an_ascii_terminal_gets_ascii():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    status.print_status(make_shot(), out)
    assert b"~ and 99,980 more" in raw.getvalue()


# -- one job -----------------------------------------------------------------------------------


def test_a_story_tells_who_what_where_and_how_it_ended():
    text = tell(make_story())
    for fact in (
        "factor(11^150+1)", "done", job(1), "done: {3: 1}", "alice  signature verified", "call",
        "3 attempts, 2 min of time, 64 MiB of output", "attempt 1", "30.0 s: desk was",
        "kiwi on kiwi.lab", "29.5 s", "37 MB of memory at most", "curve 1", "… 40 kB left out …",
        "curve 99", f"spool/done/{job(1)}",
    ):  # fmt: skip
        assert fact in text, fact
    assert_harmless(text)


def test_what_is_not_verified_is_said_in_capitals():
    told = make_story()
    told.receipt_check = Check(False, "key SHA256:x: not in the roster")
    told.outputs = {"stdout": Excerpt(2, ("5",), signed=False)}
    text = tell(told)
    assert "NOT verified: key SHA256:x: not in the roster" in text
    assert "NOT what the worker signed" in text


def test_a_job_with_nothing_but_a_name_has_a_page():
    text = tell(Story(job(1), State.INCOMING, "", f"incoming/{job(1)}.job", NOW))
    assert job(1) in text and "incoming" in text


# -- hostile text ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, database=None)
@given(hostile, hostile, numbers, st.booleans())
def test_no_text_in_a_spool_reaches_the_terminal_raw_in_status(one, two, number, color):
    count = int(number) if abs(number) < 1e9 else 5
    shot = Snapshot(one, two, NOW, two, number, count % 2 == 0, {one: count, "queued": count})
    shot.workers = [WorkerRow(one, two, count, count, number, color, one, (two,))]
    shot.running = [Running(two, count, one, number, two, one)]
    shot.waiting = [WaitingRow(one, 1, count, two, one, (two,), two)]
    shot.owners = [OwnerRow(one, count, count, number)]
    assert_harmless(show(shot, color))


@settings(max_examples=40, deadline=None, database=None)
@given(hostile, hostile, numbers, st.booleans())
def test_no_text_in_a_spool_reaches_the_terminal_raw_in_a_story(one, two, number, color):
    told = Story(one, State.FAILED, two, one, NOW, number)
    told.envelope = Envelope(one, two, two, one, one, (two,), batch=one, after=(one, two))
    told.envelope_check = told.receipt_check = Check(False, two)
    told.leases = [Lease(one, 1, two, one, two, number, number, one)]
    told.receipt = Receipt(
        one, two, 1, one, two, one, two, error=one, value=two, wall_seconds=number,
        cpu_seconds=number, host=one, python=two,
    )  # fmt: skip
    told.verdict, told.waits, told.problems = one, [two, one], [one]
    told.sizes = {one: 5}
    told.outputs = {two: Excerpt(9, (one, two), (two,), 3, False)}
    assert_harmless(tell(told, color))
    json.dumps(told.to_json())


@settings(max_examples=40, deadline=None, database=None)
@given(st.lists(st.tuples(hostile, hostile), max_size=4))
def test_no_text_reaches_the_terminal_raw_in_a_listing(rows):
    out = io.StringIO()
    tables.print_rows(["name", "[/x]"], rows, out, True)
    assert_harmless(out.getvalue(), tables.UNCUT)


# -- listings and progress ---------------------------------------------------------------------


def test_a_listing_in_a_pipe_is_not_cut():
    out = io.StringIO()
    tables.print_rows(["name", "jobs", "note"], [("kiwi", 5, "x" * 300), ("b", 1200, "")], out)
    head, one, two = out.getvalue().splitlines()
    assert head == "name  jobs  note" and one.endswith("x" * 300) and two == "b     1200"


def test_an_empty_listing_has_its_headings():
    out = io.StringIO()
    tables.print_rows(["name", "key"], [], out)
    assert out.getvalue() == "name  key\n"


def test_progress_is_silent_where_there_is_no_terminal():
    out = io.StringIO()
    with progress.Progress(out) as bar:
        bar.update(1, 2, "x")
    assert out.getvalue() == ""


def test_progress_in_a_pipe_is_a_plain_line_now_and_then():
    out, clock = io.StringIO(), iter([0.0, 1.0, 6.0, 7.0])
    with progress.Progress(out, plain_every=5, clock=lambda: next(clock)) as bar:
        for done in (1, 2, 3, 4):
            bar.update(done, 4, "curve \x1b[2J")
    assert out.getvalue() == "1 of 4  curve ?[2J\n3 of 4  curve ?[2J\n4 of 4  curve ?[2J\n"


def test_progress_on_a_terminal_is_drawn_over_and_leaves_the_cursor(terminal):
    with progress.Progress(terminal) as bar:
        bar.update(0, 0, "[/x]\x1b]52;c;x\x07")
        bar.update(5, 5, "done")
    text = terminal.getvalue()
    assert "5 of 5" in text and "\x1b[?25h" in text
    assert_harmless(text, redraws=True)


# -- watch -------------------------------------------------------------------------------------


def test_watch_prints_pages_below_each_other_where_it_cannot_draw_over():
    out, rounds = io.StringIO(), iter([False, False, True])
    status.watch(make_shot, out, 5, lambda seconds: next(rounds))
    assert out.getvalue().count("box 4711") == 3 and "\x1b" not in out.getvalue()


def test_watch_keeps_the_last_page_while_the_spool_is_out_of_reach():
    looks, rounds = iter([make_shot(), None]), iter([False, True])

    def look() -> Snapshot:
        shot = next(looks)
        if shot is None:
            raise Unreachable("box: no route to host")
        return shot

    out = io.StringIO()
    status.watch(look, out, 5, lambda seconds: next(rounds))
    last = out.getvalue()[len(out.getvalue()) // 2 - 100 :]
    assert "Out of reach" in last and "no route to host" in last and "Owners" in last


WATCHER = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.path[:0] = sys.argv[1:]
from test_view import make_shot
from dsage_spool.view import status
status.watch(make_shot, sys.stdout, 60)
print("ended")
"""


def test_watch_ends_cleanly_on_an_interrupt():
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    env = {**os.environ, "TERM": "xterm", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        env.pop(name, None)
    paths = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(status.__file__)) + "/.."]
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHER, *paths], stdin=child, stdout=child, stderr=child, env=env,
        start_new_session=True,
    )  # fmt: skip
    os.close(child)
    try:
        page = _read_until(parent, rb"12 s of recent use[^\n]*\n")
        os.write(parent, b"\x03")
        text = page + _read_until(parent, b"ended")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(parent)
    shown = text.decode().replace("\r\n", "\n")
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l") and "Traceback" not in shown
    # What follows has the terminal's own echo of ^C in it, sooner or later.
    assert_harmless(page.decode().replace("\r\n", "\n"), redraws=True)


def _read_until(handle: int, what: bytes) -> bytes:
    found = b""
    while not re.search(what, found):
        assert select.select([handle], [], [], 30)[0], f"never: {what!r} in {found!r}"
        found += os.read(handle, 65536)
    return found

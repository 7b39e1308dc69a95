"""The server's loop: look, decide, move, wait. One server for a spool.

Whatever fails on the disk stops a pass, never the server: the book is made anew from the folders and
the next pass tries again. Events only end the wait early; a full look follows at the latest after
`RESCAN` seconds.
"""

from __future__ import annotations

import os
import socket
from typing import Callable, Iterator, Protocol

from .. import layout, names, queuefile
from ..clock import Clock, stamp
from ..errors import FileAnswer, SpoolError
from ..files import Choice
from ..spool import journal, settings
from ..spool.journal import Line
from ..spool.moving import Change, commit, refuse, tidy
from ..states import FLOW, State
from ..signing import RESULT_NAMESPACE
from .. import records
from ..records import Receipt
from .decide import Decider
from .leases import Leases
from .look import Look
from .recover import can_be_read, recover
from .seen import RunLost, Seen
from .sweep import Sweeper

RESCAN = 2.0  # seconds
REWRITE = 20.0  # seconds after which the queue file is written again, so that age means absence
AFTER_FAILURE = 5.0  # seconds
GROUP_FROM = 3  # changes in one pass from which on there is load
GATHER = 0.01  # seconds in which more may come, to share one flush
QUEUE_FILE, QUEUE_FILES = "server-queue", 16  # name in tmp/, and how many are used in turn
SHORT = 0.001  # seconds between small pieces of tidying
MOST_STUCK = 10_000  # paths that are remembered, so that whoever plants them cannot fill the memory


class Wake(Protocol):
    def wait(self, timeout: float) -> None:
        """Return after `timeout` seconds, or earlier if a drop box may have changed."""


class Server:
    """`random(n)` gives n random bytes; `log(text)` takes one line; `name` is shown in `queue`."""

    def __init__(
        self, files, clock: Clock, random: Callable[[int], bytes], log: Callable[[str], None],
        name: str = "",
    ) -> None:  # fmt: skip
        self._files = files
        self._clock = clock
        self._random = random
        self._log = log
        self.settings = settings.load(files)
        self._look = Look(files, self.settings, clock)
        self._leases = Leases(self.settings.times)
        # A wait that is longer than `server_gap` would look like a sleep of the server.
        self._rescan = min(RESCAN, self.settings.times.watch)
        self._stuck: set[str] = set()
        self._written = self._swept = float("-inf")
        self._sweeper = Sweeper(files, log)
        self._turn = 0  # which of the queue files was written last
        self._journal = ""
        self._sure = False  # that the book is what the folders say
        self._told_full = False
        self._name = name or f"{socket.gethostname()} {os.getpid()}"

    # -- start -------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the book, finish what was left half done, and begin a journal."""
        self._look.refresh_roster()
        self._report_roster()
        self._load()
        counts = self.book.counts
        self._log(
            f"serving spool {self.settings.id}: {counts['queued']} queued, {counts['held']} held, "
            f"{counts['running']} running"
        )

    def _load(self) -> None:
        """The book, as the folders tell it, and a journal file of its own: so followers look too."""
        found = recover(self._files, self._check_receipt, self._clock.wall())
        self.book = found.book
        self._look.begin_anew(found.book)
        self._decider = Decider(self.book, lambda wall: names.make_job(wall, self._random(4)))
        for entry in self.book.entries.values():
            if entry.state is State.RUNNING:
                self.book.locks.add(names.claim_name(entry.job, entry.attempt, "lock"))
        for note in found.notes:
            self._log(note)
        commit(self._files, found.changes)
        self._put_away(found.changes)
        self._journal = journal.next_name(self._files.names(layout.JOURNAL), self._clock.wall())
        self._drop_queue_files()
        self._tell([_server_line("started")])
        self._write_queue()
        self._sure = True

    def _check_receipt(self, text: bytes, signature: bytes) -> None:
        receipt = records.parse(Receipt, text)
        self._look.roster.verify(
            text, signature.decode("ascii", "replace"), receipt.worker, RESULT_NAMESPACE,
            self._clock.wall(),
        )  # fmt: skip

    def _report_roster(self) -> None:
        for problem in self._look.roster.problems:
            self._log(f"roster: {problem}")

    def _report_full(self) -> None:
        """Once, and again only after a time in which there was room."""
        if self.book.full and not self._told_full:
            live = len(self.book.entries)
            self._log(f"{live} jobs have not ended: further ones wait in incoming/ until some have")
            self._told_full = True
        elif self.book.is_half_empty():
            self._told_full = False

    # -- the loop ----------------------------------------------------------------------------

    def run(self, wake: Wake, stopped: Callable[[], bool]) -> None:
        """Serve until `stopped()`."""
        while not stopped():
            try:
                busy = self.one_pass()
                pause = self._pause(busy)
            except SpoolError as error:
                pause = self._after_failure(error)
            if pause and not stopped():
                wake.wait(pause)

    def _pause(self, moved: int) -> float:
        """Seconds to wait for events; under load a little is waited in any case, to group more."""
        if self._look.more:
            return 0.0 if moved else SHORT
        if moved > GROUP_FROM:
            self._clock.sleep(GATHER)
        elif not moved and self._sweeper.remove_some():
            return SHORT
        return self._rescan

    def _after_failure(self, error: SpoolError) -> float:
        self._log(f"a pass failed, trying again in {AFTER_FAILURE:.0f} s: {error}")
        return AFTER_FAILURE

    def one_pass(self) -> int:
        """Look, decide, move; how many jobs were touched.

        Once a pass has failed, the book may be wrong: the next one begins by making it anew.
        """
        if not self._sure:
            self._load()
        self._sure = False
        moved = self._pass()
        self._sure = True
        return moved

    def _pass(self) -> int:
        self._look.more = False
        if self._look.refresh_roster():
            self._report_roster()
        changes = self._decider.decide(self._see(), self._clock.wall())
        self._report_full()
        for note in self._decider.notes:
            self._log(note)
        if changes:
            self._carry_out(changes)
        elif self._clock.boottime() - self._written > REWRITE:
            self._write_queue()
        self._sweep()
        return len(changes)

    def _sweep(self) -> None:
        now = self._clock.boottime()
        if now - self._swept > REWRITE:
            self._swept = now
            unreadable = self.book.unreadable.items()
            if any(can_be_read(self._files, state, job) for job, state in unreadable):
                self._load()
            self._sweeper.forget_old_runs(self.book, self.settings.lease)
            self._sweeper.sweep(self.book, now)

    def _see(self) -> Iterator[Seen]:
        yield from self._unstuck(self._look.incoming())
        yield from self._unstuck(self._look.claims(self.book.locks))
        yield from self._unstuck(self._look.results())
        yield from self._lost_runs()

    def _unstuck(self, seen: Iterator[Seen]) -> Iterator[Seen]:
        """Without what could not even be moved to rejected/."""
        return (one for one in seen if one.path not in self._stuck)

    def _lost_runs(self) -> Iterator[Seen]:
        now = self._clock.boottime()
        if not self._leases.due(now):
            return
        runs = [run for run, jobs in self.book.by_run.items() if jobs]
        found = {run: self._fingerprint(run) for run in runs}
        lost = self._leases.observe(now, found, self._clock.boottime())
        for run in lost:
            self._log(f"worker {run}: not heard for {self.settings.lease:g} s, its jobs go back")
            yield RunLost(run)

    def _fingerprint(self, run: str) -> object:
        """What only a heartbeat changes: not the number of links, of which we remove some."""
        if not names.parse_run(run):
            return None  # not known, after a crash
        try:
            found = self._files.stat(layout.heartbeat(run))
        except FileAnswer:
            return None
        return found.size, found.mtime, found.inode

    # -- what others see ---------------------------------------------------------------------

    def _carry_out(self, changes: list[Change]) -> None:
        refusals = [change for change in changes if change.target is State.REJECTED]
        others = [change for change in changes if change.target is not State.REJECTED]
        lines = commit(self._files, others) + self._refuse(refusals)
        if lines:
            self._write_queue()
            self._tell(lines)
        self._put_away(changes)

    def _put_away(self, changes: list[Change]) -> None:
        aside, stuck = tidy(self._files, changes)
        self._sweeper.put_aside(aside)
        for path, error in stuck:
            self._stick(path, f"cannot be put away: {error.message}")

    def _stick(self, path: str, problem: str) -> None:
        """Told once, and passed over from now on."""
        if len(self._stuck) < MOST_STUCK:
            self._stuck.add(path)
        self._log(f"{path}: {problem}")

    def _refuse(self, refusals: list[Change]) -> list[Line]:
        if not refusals:
            return []
        lines = []
        stuck = {change.name: error for change, error in refuse(self._files, refusals)}
        for change in refusals:
            if error := stuck.get(change.name):
                for path in change.takes:
                    self._stick(path, f"cannot be moved to rejected/: {error.message}")
                self.book.counts["rejected"] -= 1
            else:
                self._log(f"rejected {change.folder}: {change.lines[0].note}")
                lines += change.lines
        return lines

    def _tell(self, lines: list[Line]) -> None:
        wall = self._clock.wall()
        day = stamp(wall)[:10].replace("-", "")
        if self._journal[:8] < day:
            old, self._journal = self._journal, f"{day}.1"
            self._write_queue()
            self._append(old, [_server_line(journal.CONTINUED)], wall)
        self._append(self._journal, lines, wall)

    def _append(self, name: str, lines: list[Line], wall: float) -> None:
        text = "".join(f"{line.text(wall)}\n" for line in lines)
        self._files.append(layout.journal(name), text.encode())

    def _write_queue(self) -> None:
        """Put another file in the place of `queue`, out of a few that are used in turn.

        Each stays linked in tmp/, since ext4 makes new files slowly where many were just removed.
        """
        wall = self._clock.wall()
        lines = [*self._head(wall), *self._owner_lines(wall), *self._job_lines(wall)]
        self._turn = (self._turn + 1) % QUEUE_FILES
        spare = layout.in_tmp(f"{QUEUE_FILE}.{self._turn}")
        self._files.rewrite(spare, queuefile.finish(lines))
        self._files.link(spare, layout.in_tmp(QUEUE_FILE))
        self._files.move(layout.in_tmp(QUEUE_FILE), layout.QUEUE)
        self._written = self._clock.boottime()

    def _drop_queue_files(self) -> None:
        """Begin with new ones: one of them may be `queue` itself, and nobody writes into that.

        A rename after a link to that one would also do nothing, and leave the link behind.
        """
        ours = Choice(
            QUEUE_FILE, lambda names: [name for name in names if name.startswith(QUEUE_FILE)]
        )
        for name in self._files.names(layout.TMP, None, ours):
            self._files.remove(layout.in_tmp(name))

    def _head(self, wall: float) -> list[str]:
        counts = {str(state): self.book.counts[str(state)] for state in FLOW[1:]}
        return queuefile.head_lines(wall, self._journal, self._name, counts)

    def _owner_lines(self, wall: float) -> list[str]:
        lines = []
        for owner, use in sorted(self.book.uses.items()):
            numbers = {
                "queued": self.book.queued_by[owner],
                "running": use.running,
                "use": round(use.now(wall), 1),
            }
            lines.append(queuefile.owner_line(owner, numbers))
        return lines

    def _job_lines(self, wall: float) -> list[str]:
        running = (
            self.book.entries[job] for jobs in self.book.by_run.values() for job in sorted(jobs)
        )
        lines = [
            queuefile.running_line(
                queuefile.Running(
                    entry.job, entry.attempt, entry.worker, entry.since, entry.owner, entry.title
                )
            )
            for entry in running
        ]
        return lines + [entry.next_line() for entry in self.book.order(wall)]

    def close(self) -> None:
        """Tell that the server stops; jobs stay where they are."""
        self._name = "-"
        self._write_queue()
        self._tell([_server_line("stopped")])
        self._files.sync([layout.journal(self._journal)])
        self._log("stopped")


def _server_line(note: str) -> Line:
    return Line("-", "server", "-", "-", "-", note)

"""The worker's loop: follow the queue, claim, fetch, run, deliver.

One thread does all of it in turns, the heartbeat has its own (`heart`), jobs are processes
(`children`). The connection may fail at any time: running jobs go on until the lease is in doubt,
finished results wait in the outbox, and the worker connects again by itself.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from typing import Any, Callable

from .. import layout, names, records
from ..children import Children, Ended
from ..clock import Clock
from ..errors import Gone, SpoolError, Unreachable
from ..files import Files
from ..queuefile import QueueView
from ..records import Worker
from ..spool import dropping, journal, reading, settings
from ..spool.settings import Settings
from ..states import State
from ..timing import patience
from .choose import Appetite, Chooser
from .deliver import Deliveries
from .hand import Hand, is_over
from .heart import Heart, HeartThread
from .limits import Limits
from .output import LiveOutput
from .retry import Retry
from .rosters import RosterFeed
from .strays import Strays

GATHER = 0.02  # seconds in which short jobs may end together, to share their requests

class Monitor:
    """`connect()` opens the spool's files; a second call opens another channel for the heartbeat."""

    def __init__(
        self,
        connect: Callable[[], Files],
        clock: Clock,
        random: Callable[[int], bytes],
        children: Children,
        deliveries: Deliveries,
        worker: Worker,
        limits: Limits,
        log: Callable[[str], None],
        roster: bytes | None = None,
        longest_wait: float = 2.0,
        place: str = "this folder",
        threads: Any = threading,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._random = random
        self._children = children
        self._deliveries = deliveries
        self._worker = worker
        self._limits = limits
        self._log = log
        self._roster = RosterFeed(children, roster)
        self._longest_wait = longest_wait
        self._place = place
        self._threads = threads
        self._files: Files | None = None
        self._settings: Settings | None = None
        self._heart: Heart | None = None
        self._thread: HeartThread | None = None
        self._hand = Hand(children)
        self._doubtful: list[tuple[str, int]] = []  # claims of which we do not know who won
        self._tried: set[tuple[str, int]] = set()  # claimed or lost, and still in the queue file
        self._tried_since = self._queue_at = float("-inf")
        self._chooser = Chooser(frozenset(worker.offers))
        self._appetite = Appetite(children.slots)
        self._live = LiveOutput(children, clock)
        self._claimed = 0
        self._news_at = clock.boottime()
        self._queue_stale = True
        self._retry = Retry(random)

    # -- the loop ----------------------------------------------------------------------------

    def run(self, stopped: Callable[[], bool]) -> None:
        """Work until `stopped()` or a limit; gives back what is in hand."""
        try:
            while not stopped() and not self._finished():
                self.step()
            self._stop()
        finally:
            if self._thread:
                self._thread.close()
            self._hang_up()

    def step(self) -> None:
        """One turn: collect what has ended, then deal with the spool if it can be reached."""
        self._collect(self._pause())
        self._mind_the_lease()
        if not self._online():
            return
        began = self._clock.boottime()
        try:
            self._deliveries.deliver(self._files, self._worker.run)
            self._follow()
            moved = self._queue_stale and self._take_more()
            self._live.send(self._files, self._hand)
            self._retry.succeeded()
        except SpoolError as error:  # a spool that fails is as good as away: come back later
            self._lost(error)
            return
        self._appetite.cycle(self._clock.boottime() - began if moved else 0.0)

    def _pause(self) -> float:
        """How long to wait for a child before the next look at the spool."""
        now = self._clock.boottime()
        if self._files is None:
            return min(max(0.0, self._retry.at - now), 1.0)
        if len(self._deliveries) or self._queue_stale:
            return 0.0
        return patience(now - self._news_at, self._longest_wait)

    def _finished(self) -> bool:
        """For workers that end by themselves: nothing in hand, and nothing to take."""
        if self._hand or self._doubtful or (len(self._deliveries) and self._files is not None):
            return False
        if self._limits.reached(self._claimed, self._clock.boottime()):
            return True
        return self._limits.once and self._files is not None and not self._queue_stale

    # -- the connection ----------------------------------------------------------------------

    def _online(self) -> bool:
        if self._files is not None:
            return True
        if self._clock.boottime() < self._retry.at:
            return False
        try:
            self._begin(self._connect())
        except SpoolError as error:
            # A key that was refused once is refused again; many tries lock out a whole network.
            hopeless = self._heart is None and not isinstance(error, Unreachable)
            if hopeless or (self._limits.once and not self._hand):
                raise
            self._lost(error)
            return False
        return True

    def _begin(self, files: Files) -> None:
        """Take up the spool over a new connection."""
        self._files = files
        self._settings = settings.load(files, self._place)
        if not self._still_enrolled():
            self._enrol()
        self._thread.use(self._connect)
        self._follower = journal.Follower(files, self._clock.boottime)
        self._follower.begin()
        self._check_doubtful()
        self._hand.check_locks(files)
        self._queue_stale = True

    def _still_enrolled(self) -> bool:
        if self._heart is None or self._heart.lost:
            return False
        try:
            self._heart.beat(self._files)
        except Gone:
            return False
        return True

    def _enrol(self) -> None:
        """A new run of this worker: a heartbeat file of its own, to which its claims are linked.

        The old run is not heard any more, so the server takes back what was claimed under it.
        """
        self._hand.abandon_all()
        run = names.run_name(self._worker.worker, names.make_nonce(self._random(5)))
        self._worker = replace(self._worker, run=run)
        dropping.enrol(self._files, self._worker)
        size = len(records.make(self._worker))
        self._heart = Heart(self._clock, self._settings.times, run, size)
        self._strays = Strays(self._settings.times.heartbeat)
        if self._thread:
            self._thread.close()
        self._thread = HeartThread(self._heart, self._settings.times, self._threads)

    def _lost(self, error: SpoolError) -> None:
        """Hang up, and try again later."""
        self._hang_up()
        pause = self._retry.failed(self._clock.boottime())
        self._log(f"{error.message}; trying again in {pause:.0f} s")

    def _hang_up(self) -> None:
        if self._thread:
            self._thread.use(None)
        if self._files is not None:
            self._files.close()
        self._files = None

    def _mind_the_lease(self) -> None:
        """Too long without a heartbeat: stop jobs that others may have by now, and connect anew."""
        if self._heart is None or not self._heart.must_stop():
            return
        if self._hand.wanted:
            self._log("no heartbeat arrived for too long: stopping what runs, it will be run again")
            self._heart.lost = True
            self._hand.abandon_all()
        self._hang_up()

    # -- results -----------------------------------------------------------------------------

    def _collect(self, timeout: float) -> None:
        kept = []
        for ended in self._gathered(timeout):
            held = self._hand.let_go((ended.job, ended.attempt))
            self._live.forget(ended.job, ended.attempt)
            self._strays.ran.add((ended.job, ended.attempt))
            self._news_at = self._clock.boottime()
            self._queue_stale = True
            if ended.outcome != "returned":
                self._appetite.ran(ended.wall_seconds)
            if held and not held.abandoned:
                kept.append((ended, held.envelope_sha256))
                if ended.outcome not in ("ok", "returned"):
                    self._log(f"{ended.job} {ended.outcome}: {ended.error}")
        self._deliveries.keep(kept, self._worker, self._settings)

    def _gathered(self, timeout: float) -> list[Ended]:
        """What has ended; of short jobs, what ends in a moment while no slot runs dry."""
        ended = self._children.wait(timeout)
        until = self._clock.boottime() + GATHER
        while ended and self._appetite.hurried and min(self._children.loads()) > 1:
            left = until - self._clock.boottime()
            if left <= 0:
                break
            ended += self._children.wait(left)
        return ended

    # -- what the server says ----------------------------------------------------------------

    def _follow(self) -> None:
        lines, missed = self._follower.poll()
        if missed:
            self._hand.check_locks(self._files)
        now = self._clock.boottime()
        if lines or missed:
            self._news_at = now
        if lines or missed or now - self._queue_at > self._settings.times.heartbeat:
            self._queue_stale = True
        self._hand.heed(lines)

    def _check_doubtful(self) -> None:
        doubtful = [key for key in self._doubtful if key not in self._strays.ran]
        won = dropping.claimed_after_all(self._files, self._worker.run, doubtful)
        self._doubtful = []
        self._fetch(won)

    # -- more jobs ---------------------------------------------------------------------------

    def _take_more(self) -> bool:
        """Claim and fetch what the appetite asks for; whether anything was claimed."""
        self._queue_stale = False
        room = self._room()
        if room <= 0 or self._heart.must_stop():
            return False
        view = self._read_queue()
        wanted = self._chooser.choose(
            view.next, room, self._tried, self._hand.keys(), self._queue_at
        )
        if not wanted:
            return False
        self._roster.refresh(self._files, self._clock.boottime())
        won = self._claim(wanted)
        self._fetch(won)
        self._queue_stale = len(won) < len(wanted)
        return bool(won)

    def _read_queue(self) -> QueueView:
        view = reading.read_queue(self._files) or QueueView()
        self._queue_at = self._clock.boottime()
        queued = {(row.job, row.attempt) for row in view.next}
        self._strays.forget(queued | {(row.job, row.attempt) for row in view.running})
        self._forget_tries(queued)
        mine = self._hand.keys() | self._deliveries.keys()
        for key in self._strays.overdue(view.running, self._worker.worker, mine, self._queue_at):
            self._return_stray(*key)
        return view

    def _forget_tries(self, queued: set[tuple[str, int]]) -> None:
        """Now and then also those still queued: the server may have removed the lock that beat us."""
        if self._queue_at - self._tried_since > self._settings.times.heartbeat:
            self._tried, self._tried_since = self._hand.keys() | self._strays.ran, self._queue_at
        self._tried &= queued

    def _return_stray(self, job: str, attempt: int) -> None:
        """Give back a claim that is ours by its lock and that we know nothing of.

        First look for our own delivery: a server that is away has not taken it yet, and when it has,
        the lock is gone before.
        """
        if self._is_there(layout.result(job, attempt)):
            return
        if not dropping.holds(self._files, self._worker.run, layout.lock(job, attempt)):
            return
        texts = reading.read_parts(
            self._files, State.RUNNING, [job], [layout.ENVELOPE], records.RECORD_LIMIT
        )[0]
        if layout.ENVELOPE in texts:
            self._log(f"{job}: claimed and forgotten, given back")
            # What was delivered and refused has been tried, and uses up the attempt.
            wall = 0.001 if (job, attempt) in self._strays.ran else 0.0
            ended = Ended(job, attempt, "returned", error="claimed and forgotten", wall_seconds=wall)
            digest = hashlib.sha256(texts[layout.ENVELOPE]).hexdigest()
            self._deliveries.keep([(ended, digest)], self._worker, self._settings)

    def _is_there(self, path: str) -> bool:
        try:
            self._files.stat(path)
        except Gone:
            return False
        return True

    def _room(self) -> int:
        wanted = self._appetite.wanted() - len(self._hand)
        return self._limits.room(wanted, self._claimed, self._clock.boottime())

    def _claim(self, wanted: list[tuple[str, int]]) -> list[tuple[str, int]]:
        try:
            won = dropping.claim(self._files, self._worker.run, wanted)
        except Unreachable:
            self._doubtful += wanted
            raise
        self._tried |= set(wanted)
        claimed = [key for key, mine in zip(wanted, won) if mine]
        self._claimed += len(claimed)
        return claimed

    def _fetch(self, claimed: list[tuple[str, int]]) -> None:
        """Read the jobs and hand them to the slots. The server moves them meanwhile: look twice."""
        try:
            for state in (State.QUEUED, State.RUNNING, State.QUEUED, State.RUNNING):
                claimed = self._fetch_from(state, claimed)
                if not claimed:
                    return
        except Unreachable:
            self._doubtful += claimed
            raise
        # Cancelled between the claim and now; the server removes the lock.

    def _fetch_from(self, state: State, claimed: list[tuple[str, int]]) -> list[tuple[str, int]]:
        missing = []
        for number in sorted({attempt for _, attempt in claimed}):
            some = [(job, attempt) for job, attempt in claimed if attempt == number]
            parts = [*sorted(layout.JOB_PARTS), layout.lease_name(number)]
            found = reading.read_parts(
                self._files, state, [job for job, _ in some], parts, self._settings.drop_limit
            )
            for key, texts in zip(some, found):
                if not layout.JOB_PARTS <= texts.keys():
                    missing.append(key)
                elif not is_over(texts.get(layout.lease_name(number))):
                    self._hand.take(key, texts, self._settings.id)
        return missing

    # -- the end -----------------------------------------------------------------------------

    def _stop(self) -> None:
        """Stop what runs, tell the server which claims are free again, deliver what is finished."""
        self._hand.stop_all()
        deadline = self._clock.boottime() + 10
        while self._hand and self._clock.boottime() < deadline:
            self._collect(0.2)
        if len(self._deliveries) and self._files is not None:
            try:
                self._deliveries.deliver(self._files, self._worker.run)
            except SpoolError as error:
                self._log(f"{len(self._deliveries)} results wait for the next start: {error.message}")

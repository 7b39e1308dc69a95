"""A person's connection to a spool: submit, follow, collect.

Not shared between threads: each thread opens its own session. Methods raise Unreachable when the
network or the host is away; what was submitted before stays submitted, and asking again is harmless.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Iterable, Iterator, Sequence

from .. import layout, names, records
from ..clock import Clock, SystemClock
from ..errors import SpoolError, UnknownJob, Unreachable, UsageError, WaitTimeout
from ..files import Files
from ..records import Request
from ..signing import JOB_NAMESPACE, Roster, Signer, sign
from ..spool import dropping, reading, settings
from ..spool.dropping import Drop
from ..spool.journal import Follower
from ..states import TERMINAL, State
from ..timing import patience
from .compose import JobNames, Options, SignedJob, Work, call_work, command_work, compose, source_work
from .job import Job
from .ledger import Ledger

MANY, GATHER = 3, 0.03  # more than so many at once: wait a moment (seconds) for still more
AT_ONCE = 500  # jobs that are dropped, or collected, with one flush


class Session:
    """Made by `dsage_spool.connect`. `options` are those of jobs submitted without others."""

    def __init__(
        self,
        files: Files,
        signer: Signer,
        user: str,
        *,
        clock: Clock | None = None,
        random: Callable[[int], bytes] = os.urandom,
        ledger: Ledger | None = None,
        roster: bytes | None = None,
        longest_wait: float = 1.0,
        place: str = "this spool",
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = files
        self._signer = signer
        self._clock = clock or SystemClock()
        self._random = random
        self._ledger = ledger
        self._on_close = on_close
        self._longest_wait = longest_wait
        self._nonce = names.make_nonce(random(5))
        self._names = JobNames(self._clock.wall, random)
        self._follower: Follower | None = None
        self._ended: dict[str, State] = {}  # told by the journal, for jobs of this session
        self._mine: dict[str, str] = {}  # job: sha256 of the envelope as we signed it
        self._gaps = 0  # how often we may have missed lines of the journal
        self._followed: dict[str, int] = {}  # job: the gaps there had been when it was submitted
        self.user = user
        self.settings = settings.load(files, place)
        self.roster = Roster.parse((roster or self._read_roster()).decode("utf-8", "replace"))

    @property
    def files(self) -> Files:
        return self._files

    @property
    def ledger(self) -> Ledger | None:
        return self._ledger

    def _read_roster(self) -> bytes:
        return self._files.read(layout.ROSTER, 16 << 20)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. Submitted jobs go on."""
        self._files.close()
        self._on_close()

    # -- submit ------------------------------------------------------------------------------

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job:
        """Submit one call; returns once the job is on stable storage of the spool's host."""
        return self.submit_all([call_work(function, args, kwargs)])[0]

    def submit_source(self, text: str, options: Options = Options()) -> Job:
        """Submit source text: sympy's names are at hand, `^` is power, the last value is the result."""
        return self.submit_all([source_work(text)], options)[0]

    def submit_command(self, argv: Sequence[str], options: Options = Options()) -> Job:
        """Submit a command; its exit status decides."""
        return self.submit_all([command_work(argv)], options)[0]

    def submit_call(
        self, function: Callable[..., Any], args: Sequence[Any] = (), kwargs: dict | None = None,
        options: Options = Options(),
    ) -> Job:  # fmt: skip
        """Like `submit`, with options of the job beside the arguments of the function."""
        return self.submit_all([call_work(function, args, kwargs or {})], options)[0]

    def map(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """A job for each element, submitted now; the results in the order of the inputs."""
        return self._in_order(self.submit_all([call_work(function, a, {}) for a in zip(*iterables)]))

    def _in_order(self, jobs: list[Job]) -> Iterator[Any]:
        for start in range(0, len(jobs), AT_ONCE):
            some = jobs[start : start + AT_ONCE]
            self.wait(some)
            self.fetch(some)
            yield from (job.result() for job in some)

    def submit_all(self, works: Iterable[Work], options: Options = Options()) -> list[Job]:
        """Submit many jobs, each a file of its own, with one flush for every few hundred."""
        self._begin_to_follow()
        jobs: list[Job] = []
        batch: list[SignedJob] = []
        for work in works:
            batch.append(self._sign(work, options))
            if len(batch) == AT_ONCE:
                jobs += self._drop(batch)
                batch = []
        return jobs + self._drop(batch)

    def _sign(self, work: Work, options: Options) -> SignedJob:
        if len(work.payload) > self.settings.payload_limit:
            raise UsageError(
                f"{work.title}: {len(work.payload)} bytes to send, and this spool takes "
                f"{self.settings.payload_limit}",
                "pass less data by value, or have the spool's owner raise payload_limit in spool.json",
            )
        return compose(
            work, options, self.settings.id, self.user, self._signer, self._names.new()
        )

    def _drop(self, batch: list[SignedJob]) -> list[Job]:
        if not batch:
            return []
        self._put([dropping.job_drop(j.job, j.envelope, j.signature, j.payload) for j in batch])
        self._mine.update((j.job, j.digest) for j in batch)
        self._followed.update((j.job, self._gaps) for j in batch)
        if self._ledger:
            self._ledger.add((j.job, j.title) for j in batch)
        return [Job(self, j.job, j.title) for j in batch]

    def _put(self, drops: list[Drop]) -> None:
        """Drop files; what failed for want of a connection may be repeated, the rest is an error."""
        for outcome in dropping.put(self._files, self._nonce, drops):
            if isinstance(outcome, SpoolError):
                raise outcome

    @property
    def durable(self) -> bool:
        """Whether the host confirms stable storage; if not, submitted means sent."""
        return self._files.durable

    # -- requests ----------------------------------------------------------------------------

    def request(self, jobs: Sequence[str], verb: str) -> None:
        """Ask the server to cancel, hold or release jobs; it answers in the journal."""
        self._begin_to_follow()
        drops = []
        for job in jobs:
            made = round(self._clock.wall(), 3)
            nonce = names.make_request_nonce(made, self._random(1))
            request = Request(self.settings.id, job, nonce, self.user, verb, made)
            text = records.make(request)
            drops.append(
                dropping.request_drop(request, text, sign(self._signer, text, JOB_NAMESPACE))
            )
        self._put(drops)

    # -- follow ------------------------------------------------------------------------------

    def job(self, name: str) -> Job:
        """A handle for a job by its full name; nothing is asked yet."""
        if not names.is_job(name):
            raise UsageError(f"{name!r} is not the name of a job")
        return Job(self, name)

    def _begin_to_follow(self) -> None:
        if self._follower is None:
            self._follower = Follower(self._files, self._clock.boottime)
            self._follower.begin()

    def poll(self, pending: Iterable[str] = ()) -> bool:
        """One look at the journal; whether there was anything new.

        If lines may have been missed, the jobs in `pending` are looked up in their folders.
        """
        self._begin_to_follow()
        lines, missed = self._follower.poll()
        for line in lines:
            if line.target in _ENDS:
                self._ended[line.job] = State(line.target)
        if missed:
            self._gaps += 1
            self._look_up(list(pending))
        return bool(lines) or missed

    def _look_up(self, jobs: Sequence[str]) -> None:
        for start in range(0, len(jobs), AT_ONCE):
            some = jobs[start : start + AT_ONCE]
            for job, state in zip(some, reading.states_of(self._files, some)):
                if state in TERMINAL:
                    self._ended[job] = state
                elif state is None and self.state(job) is None:
                    # It would be waited for in vain.
                    raise UnknownJob(f"{job}: no such job in this spool", "dsage-spool status")

    def ended(self, jobs: Iterable[Job]) -> list[Job]:
        """Those of the jobs that are known to have ended."""
        return [job for job in jobs if job.id in self._ended]

    def state(self, job: str) -> State | None:
        """Where a job is now, looked up."""
        state = self._ended.get(job) or reading.state_of(self._files, job)
        if state in TERMINAL:
            self._ended[job] = state
        return state

    def wait(self, jobs: Sequence[Job], timeout: float | None = None) -> None:
        """Return when all have ended; WaitTimeout after `timeout` seconds."""
        for _ in self.as_completed(jobs, timeout):
            pass

    def as_completed(
        self, jobs: Sequence[Job], timeout: float | None = None, fetch: bool = False
    ) -> Iterator[Job]:
        """The jobs as they end; with `fetch`, their results are read many at a time."""
        pending = {job.id: job for job in jobs}
        deadline = None if timeout is None else self._clock.boottime() + timeout
        self._begin_to_follow()
        gaps = None
        while pending:
            if gaps != self._gaps:
                gaps = self._gaps
                self._look_up([job for job in pending if self._may_have_ended(job)])
            ready = [pending.pop(job) for job in list(pending) if job in self._ended]
            if fetch:
                self.fetch(ready)
            yield from ready
            if pending:
                if len(ready) > MANY:
                    self._clock.sleep(GATHER)
                self._wait_for_news(pending, deadline)

    def _may_have_ended(self, job: str) -> bool:
        """Whether a job may have ended without our knowing: the journal tells only what it told us."""
        return job not in self._ended and self._followed.get(job) != self._gaps

    def next_done(self, jobs: Sequence[Job], timeout: float | None = None) -> list[Job]:
        """Wait until at least one has ended; those that have, none after `timeout` seconds."""
        try:
            first = next(self.as_completed(jobs, timeout), None)
        except WaitTimeout:
            return []
        return self.ended(jobs) if first else []

    def _wait_for_news(self, pending: dict[str, Job], deadline: float | None) -> None:
        began = self._clock.boottime()
        while not self.poll(pending):
            now = self._clock.boottime()
            if deadline is not None and now >= deadline:
                raise WaitTimeout(
                    f"{len(pending)} of the jobs have not ended yet, {next(iter(pending))} among them",
                    "they go on; wait again, or look with `dsage-spool status`",
                )
            pause = patience(now - began, self._longest_wait)
            self._clock.sleep(pause if deadline is None else min(pause, deadline - now))

    # -- collect -----------------------------------------------------------------------------

    def fetch(self, jobs: Sequence[Job]) -> None:
        """Read how these jobs ended, all requests in flight together."""
        by_state: dict[State, list[Job]] = {}
        for job in jobs:
            state = self._ended.get(job.id)
            if state and not job.fetched:
                by_state.setdefault(state, []).append(job)
        for state, some in by_state.items():
            for start in range(0, len(some), AT_ONCE):
                self._fetch_some(state, some[start : start + AT_ONCE])

    def _fetch_some(self, state: State, jobs: list[Job]) -> None:
        wanted = _PARTS[state]
        limit = self.settings.delivery_limit
        found = reading.read_parts(self._files, state, [job.id for job in jobs], wanted, limit)
        for job, parts in zip(jobs, found):
            if not parts:
                raise Unreachable(
                    f"{job.id}: its folder is empty or gone", "ask again; see `dsage-spool show`"
                )
            job.take(state, parts)

    def digest_of(self, job: str) -> str | None:
        """The sha256 of the envelope as this session signed it."""
        return self._mine.get(job)

    def now(self) -> float:
        return self._clock.wall()


_ENDS = {str(state) for state in TERMINAL}
_RAN = (layout.RECEIPT, layout.RECEIPT_SIGNATURE, layout.RESULT)
_PARTS = {
    State.DONE: _RAN,
    State.FAILED: (*_RAN, layout.VERDICT, layout.TRACEBACK),
    State.CANCELLED: (layout.VERDICT,),
    State.REJECTED: (layout.VERDICT,),
}

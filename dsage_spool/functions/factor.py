"""Distributed factorization: a driver that makes curve jobs until a number is split.

Primes below 10^6, powers and algebraic parts come first, here. What stays composite goes out as
jobs of a few curves each, at rising bounds, with a constant number in flight; no seed is used
twice, but for jobs that were lost. Workers are not believed: a divisor is used only if it divides,
and no answer can make the result wrong. That a worker found nothing cannot be checked.
Primality is sympy's isprime: proved below 2^64; above it BPSW, no counterexample known.

The session is any object with submit, next_done and jobs as in the protocols below. Raises
UsageError for what is no number; JobFailed when the same seeds are lost three times or BAD_IN_A_ROW
answers are no divisors; any other JobError as it comes. Jobs in flight are cancelled on every exit.

Source of the scheme: DSAGE's distributed factorization (R. Bradshaw, 2007), without its ratchet of
bounds; bounds and numbers of curves follow Zimmermann and Dodson, 20 years of ECM (2006), with b2
brought down to what suits this second stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log, prod
from traceback import format_exc
from typing import Any, NamedTuple, Protocol

from dsage_spool.errors import JobError, JobFailed, SpoolError, UsageError
from dsage_spool.functions import algebra, ecm
from dsage_spool.functions.pieces import Found, Pieces, is_divisor, is_prime

# The smallest there is, not a lucky one: over 18 starting seeds 11^150+1 took 42 to 375 curves,
# mean 186, median 158; this one takes about 143.
FIRST_SEED = 6
JOB_SECONDS = 1.5  # CPU of one job: long against a job's own cost, short enough to watch
MAX_CURVES = 200  # of one job
TRIES = 3  # for the same seeds
BAD_IN_A_ROW = 20  # then something is wrong with all workers
_WAIT = 60.0  # seconds; only how often an idle driver looks around
_SLOWEST, _FASTEST = 1e-4, 1e-8  # seconds a multiplication that a worker may claim


class Bounds(NamedTuple):
    b1: int
    b2: int
    curves: int


LEVELS = (  # rising, roughly for primes of 15, 20, 25, 28, 30, 35, 40 digits; the last has no end
    Bounds(2_000, 150_000, 30),
    Bounds(11_000, 1_000_000, 80),
    Bounds(40_000, 3_500_000, 250),
    Bounds(100_000, 10_000_000, 400),
    Bounds(250_000, 30_000_000, 600),
    Bounds(1_000_000, 100_000_000, 1_200),
    Bounds(3_000_000, 200_000_000, 3_000),
)


class Job(Protocol):
    id: Any

    def cancel(self) -> bool: ...
    def result(self) -> Any: ...


class Session(Protocol):
    def submit(self, function: Callable[..., Any], *args: Any, title: str) -> Job: ...
    def next_done(self, jobs: Sequence[Job], timeout: float) -> Sequence[Job]: ...


# --- what an observer is told, besides Found -----------------------------------------------------


@dataclass(frozen=True)
class Level:
    """Curves on `number` go on with these bounds."""

    number: int
    b1: int
    b2: int
    curves: int


@dataclass(frozen=True)
class Progress:
    """So far: curves run, CPU seconds as the workers tell; and jobs in flight now."""

    curves: int
    seconds: float
    out: int


@dataclass(frozen=True)
class Lost:
    """A job failed for good; its seeds are run again."""

    job: Any
    reason: str


@dataclass(frozen=True)
class BadAnswer:
    """A worker sent what is no answer; its seeds are run again."""

    job: Any
    answer: str


Event = Found | Level | Progress | Lost | BadAnswer
Observer = Callable[[Any], None]


# --- the result ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Factors:
    """`n` = product of p^m over `factors`; 0 and -1 stand for themselves, as in sympy."""

    n: int
    factors: dict[int, int]
    origins: dict[int, str]
    title: str = ""

    def check(self) -> None:
        """Multiply back and test every prime again; SpoolError if anything is amiss."""
        if prod(p**m for p, m in self.factors.items()) != self.n:
            raise SpoolError(f"factors of {self.n}: their product is another number")
        for p in self.factors:
            if p not in (0, -1) and not is_prime(p):
                raise SpoolError(f"factors of {self.n}: {p} is not prime")

    def text(self) -> str:
        """One line such as `11^150+1 = 2 * 13 * 61`."""
        powers = [f"{p}^{m}" if m > 1 else f"{p}" for p, m in sorted(self.factors.items())]
        return f"{self.title or self.n} = {' * '.join(powers) or '1'}"


def factor(
    n: int | str,
    session: Session,
    *,
    width: int = 6,
    observe: Observer = lambda event: None,
    first_seed: int = FIRST_SEED,
) -> Factors:
    """Factor a number, or an expression such as "11^150+1", with `width` jobs in flight.

    `observe` is called here, in the caller's thread, with each event; what it raises ends the run.
    The same `first_seed` means the same curves in the same order, for everybody.
    """
    value, hints = _read(n)
    if width < 1 or first_seed < ecm.SMALLEST_SEED:
        raise UsageError(
            f"factor with width {width}, first seed {first_seed}: out of range",
            hint=f"width starts at 1, seeds at {ecm.SMALLEST_SEED}",
        )
    pieces = Pieces(value, hints, observe)
    _Driver(pieces, session, width, observe, first_seed).run()
    found = Factors(value, dict(sorted(pieces.primes.items())), pieces.origins, str(n))
    found.check()
    return found


def _read(n: int | str) -> tuple[int, list[int]]:
    if isinstance(n, str):
        return algebra.parse(n)
    if not isinstance(n, int):
        raise UsageError(f"{n!r}: not a whole number", hint="give an int, or an expression as text")
    if n.bit_length() > algebra.MAX_BITS:
        raise UsageError(
            f"a number of {n.bit_length()} bits: out of range",
            hint=f"at most {algebra.MAX_DIGITS} digits are taken",
        )
    return int(n), []


# --- the driver ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """What one job was asked."""

    number: int
    level: int
    first_seed: int
    count: int
    tries: int = 1


@dataclass
class _Effort:
    """How far the curves on one composite are."""

    level: int = 0
    issued: int = 0


class _Driver:
    def __init__(
        self, pieces: Pieces, session: Session, width: int, observe: Observer, seed: int
    ) -> None:
        self.pieces = pieces
        self._session, self._width, self._observe = session, width, observe
        self._seed = seed
        self._out: dict[Any, tuple[Job, _Task]] = {}
        self._again: list[_Task] = []
        self._efforts: dict[int, _Effort] = {}
        self._curves, self._seconds, self._rate = 0, 0.0, 1e-6
        self._bad_in_a_row = 0

    def run(self) -> None:
        """Until no composite is open."""
        try:
            self._adopt(_Effort())
            while self.pieces.open:
                self._fill()
                jobs = [job for job, _ in self._out.values()]
                for job in self._session.next_done(jobs, _WAIT):
                    self._receive(job)
        finally:
            self._cancel(list(self._out))

    def _fill(self) -> None:
        while len(self._out) < self._width:
            task = self._again.pop() if self._again else self._next_task()
            bounds = LEVELS[task.level]
            job = self._session.submit(
                ecm.run_curves, task.number, bounds.b1, bounds.b2, task.first_seed, task.count,
                title=f"ecm {len(str(task.number))} digits b1={bounds.b1} "
                f"seeds {task.first_seed}-{task.first_seed + task.count - 1}",
            )
            self._out[job.id] = job, task

    def _next_task(self) -> _Task:
        at_work = [task.number for _, task in self._out.values()]
        number = min(self.pieces.open, key=lambda n: (at_work.count(n), n))
        effort = self._efforts[number]
        if effort.issued >= LEVELS[effort.level].curves and effort.level + 1 < len(LEVELS):
            effort.level, effort.issued = effort.level + 1, 0
            self._tell_level(number)
        task = _Task(number, effort.level, self._seed, self._size(number, effort.level))
        effort.issued += task.count
        self._seed += task.count
        return task

    def _size(self, number: int, level: int) -> int:
        """Curves that take about JOB_SECONDS, with something left for every job in flight."""
        fit = int(JOB_SECONDS / (self._rate * _cost(number, LEVELS[level])))
        return max(1, min(fit, MAX_CURVES, LEVELS[level].curves // self._width))

    def _receive(self, job: Job) -> None:
        entry = self._out.pop(job.id, None)
        if entry is None:  # its composite vanished with an earlier job of the same look
            return
        task = entry[1]
        try:
            answer = job.result()
        except JobFailed as error:
            self._lost(job, task, error)
        else:
            self._judge(job, task, answer)
        self._observe(Progress(self._curves, self._seconds, len(self._out)))

    def _judge(self, job: Job, task: _Task, answer: Any) -> None:
        if not _is_answer(answer, task):
            self._refuse(job, task, answer)
            return
        self._bad_in_a_row = 0
        self._account(answer, task)
        if answer["factor"] is not None:
            self._split(job, task, answer)

    def _lost(self, job: Job, task: _Task, error: JobFailed) -> None:
        self._observe(Lost(job.id, error.message))
        if task.tries >= TRIES:
            raise error
        self._again.append(replace(task, tries=task.tries + 1))

    def _refuse(self, job: Job, task: _Task, answer: object) -> None:
        self._observe(BadAnswer(job.id, repr(answer)[:200]))
        self._bad_in_a_row += 1
        if self._bad_in_a_row >= BAD_IN_A_ROW:
            raise JobFailed(
                f"job {job.id}: answered {repr(answer)[:60]}, bad one {BAD_IN_A_ROW} in a row",
                hint="look at which worker ran it",
            )
        self._again.append(task)

    def _split(self, job: Job, task: _Task, answer: dict[str, Any]) -> None:
        b1 = LEVELS[task.level].b1
        origin = f"ecm b1={b1} seed={answer['seed']} job {job.id}"
        self.pieces.split(task.number, answer["factor"], origin)
        self._adopt(self._efforts.pop(task.number))
        self._cancel([key for key, (_, t) in self._out.items() if t.number == task.number])
        self._again = [t for t in self._again if t.number != task.number]

    def _adopt(self, effort: _Effort) -> None:
        """New composites go on where the one they come from was: its curves were theirs too."""
        for number in self.pieces.open.keys() - self._efforts.keys():
            self._efforts[number] = replace(effort)
            self._tell_level(number)

    def _tell_level(self, number: int) -> None:
        self._observe(Level(number, *LEVELS[self._efforts[number].level]))

    def _cancel(self, keys: list[Any]) -> None:
        for key in keys:
            self._out.pop(key)[0].cancel()

    def _account(self, answer: dict[str, Any], task: _Task) -> None:
        curves, seconds = answer["curves"], float(answer["seconds"])
        self._curves += curves
        self._seconds += seconds
        rate = seconds / (curves * _cost(task.number, LEVELS[task.level]))
        self._rate += (min(max(rate, _FASTEST), _SLOWEST) - self._rate) / 4


def _cost(number: int, bounds: Bounds) -> float:
    """A curve's work, in modular multiplications of 280 bits: only for the size of jobs."""
    multiplications = 13.7 * bounds.b1 + 0.84 * bounds.b2 / log(bounds.b2) + 5_000
    return multiplications * max(0.3, number.bit_length() / 280) ** 1.5


def _is_answer(answer: object, task: _Task) -> bool:
    """Whether a worker's answer has the right form, and a divisor in it divides."""
    if not isinstance(answer, dict) or answer.keys() != {"factor", "seed", "curves", "seconds"}:
        return False
    found, seed, curves, seconds = (answer[k] for k in ("factor", "seed", "curves", "seconds"))
    if type(curves) is not int or not 1 <= curves <= task.count:
        return False
    if type(seconds) not in (int, float) or not 0 <= seconds < 1e9:
        return False
    if found is None:
        return seed is None and curves == task.count
    return is_divisor(found, task.number) and seed == task.first_seed + curves - 1


# --- the same without a spool --------------------------------------------------------------------


class LocalJob:
    """A call that waits to be made by LocalSession."""

    def __init__(self, id: int, call: Callable[[], Any]) -> None:
        self.id = id
        self.cancelled = False
        self._call = call
        self._value: Any = None
        self._error: JobError | None = None

    def run(self) -> None:
        try:
            self._value = self._call()
        except JobError as error:
            self._error = error
        except Exception as error:
            self._error = JobFailed(f"job {self.id}: {error!r}", traceback=format_exc())

    def cancel(self) -> bool:
        self.cancelled = True
        return True

    def result(self) -> Any:
        if self._error:
            raise self._error
        return self._value


class LocalSession:
    """The serial reference: one job at a time, in this process, in order of submission."""

    def __init__(self) -> None:
        self.jobs: list[LocalJob] = []

    def submit(self, function: Callable[..., Any], *args: Any, title: str = "") -> LocalJob:
        job = LocalJob(len(self.jobs) + 1, lambda: function(*args))
        self.jobs.append(job)
        return job

    def next_done(self, jobs: Sequence[LocalJob], timeout: float) -> list[LocalJob]:
        """Run the oldest of `jobs`; `timeout` does not interrupt it."""
        first = min(jobs, key=lambda job: job.id)
        first.run()
        return [first]

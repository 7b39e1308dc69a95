"""Kill at every file-system call of server, client and worker verbs, and EIO and ENOSPC at each.

Each trial plays a story (`every_call_stories`, `every_call_workers`) in a new folder of a real
file system up to its verb; the verb runs in a forked child, where strace strikes at the k-th call
of one name (`tracing`); then a new server and the other parties go on until all is at rest, and
`every_call_checks` looks at what is left. k = 1, 2, 3 … until a run has nothing left to strike.

Trials run in warm processes, each with one thread, that are told over stdin what to do. One again:
`cd tests && python -m proof.every_call 'server settle' KILL rename 2`.
"""

from __future__ import annotations

import json
import os
import random as chance
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Iterator, Sequence

from . import every_call_command, tracing
from .promises import Outcome
from .tracing import BOUND, KINDS

TESTS = Path(__file__).parent.parent
FULL_DISK = 5  # calls of one name that fail one after the other, for want of space


@dataclass(frozen=True)
class Series:
    """Faults of one kind at the calls of one name in one story: at `at`, or at all there are."""

    story: str
    call: str
    kind: str
    at: tuple[int, ...] = ()
    more: int = 0
    plant: str = ""


@dataclass
class Struck:
    """What came of a series."""

    series: Series
    points: int = 0
    ends: int = 0  # different ones: each is gone on from once
    violations: list[str] = field(default_factory=list)


class Warm:
    """A process that has imported everything and carries out series, one after another."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "proof.every_call_trial", str(folder)],
            cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": _paths()},
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: str, **content: Any) -> Any:
        try:
            self._process.stdin.write(json.dumps([what, content]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise tracing.Strange(f"the warm process has ended at {what} {content}")
        return json.loads(answer)

    def close(self) -> None:
        """It ends with its stdin; its child, if it has one, with it."""
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it is gone already
        try:
            self._process.wait(BOUND)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _paths() -> str:
    return os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])


class Crew:
    """Some warm processes, and one folder that goes with them."""

    def __init__(self, count: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="every-call-")
        self.folder = Path(self._folder.name).resolve()
        self._all: list[Warm] = []
        for number in range(count):
            (self.folder / str(number)).mkdir()
            self._all.append(Warm(self.folder / str(number)))
        self._place: dict[str, Warm] = {}

    @property
    def pids(self) -> list[int]:
        return [warm.pid for warm in self._all]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        for warm in self._all:
            warm.close()
        self._folder.cleanup()

    def ask(self, what: str, **content: Any) -> Any:
        """Always the same process for a story, since it knows what it has seen of it."""
        story = content.get("story", "")
        warm = self._place.setdefault(story, self._all[len(self._place) % len(self._all)])
        with warm.lock:
            return warm.ask(what, **content)

    def ask_all(self, what: str, rows: Sequence[dict[str, Any]]) -> list[Any]:
        with ThreadPoolExecutor(8 * len(self._all)) as pool:
            return list(pool.map(lambda row: self.ask(what, **row), rows))

    def strike(self, series: Sequence[Series]) -> list[Struck]:
        told = self.ask_all("strike", [asdict(one) for one in series])
        return [Struck(one, **answer) for one, answer in zip(series, told)]


@dataclass
class Verb:
    """A story, and the file-system calls of its verb."""

    story: str
    calls: dict[str, int]
    elsewhere: list[str] = field(default_factory=list)  # calls that do not touch its folder

    def series(self) -> Iterator[Series]:
        for call in self.calls:
            for kind in KINDS:
                yield Series(self.story, call, kind)
        if "write" in self.calls:
            yield Series(self.story, "write", "ENOSPC", more=FULL_DISK - 1)


def verbs(crew: Crew, stories: Sequence[str] = ()) -> list[Verb]:
    names = stories or crew.ask("stories")
    found = crew.ask_all("trace", [{"story": name} for name in names])
    return [Verb(name, **traced) for name, traced in zip(names, found)]


# Each planted bug, and faults of which at least one must show it.
CATCHES = {
    "drops are written in place": Series("client submit of 1", "write", "KILL"),
    "the client is told before": Series("client submit of 1", "rename", "KILL"),
    "the verdict is written first": Series("server fail", "openat", "KILL"),
    "drops are put away before the move": Series("server accept", "rename", "KILL"),
    "the outbox forgets before": Series("worker start with results of before", "rename", "KILL"),
    "the queue is written in place": Series("server accept", "write", "KILL"),
    "a flush that fails is passed over": Series("client submit of 1", "fsync", "EIO"),
}


def strike_planted(crew: Crew, names: Sequence[str] = tuple(CATCHES)) -> list[Struck]:
    return crew.strike([replace(CATCHES[name], plant=name) for name in names])


# -- rows for the table -----------------------------------------------------------------------

METHOD = {
    "KILL": "kill at {} file-system call of {} verbs (strace)",
    "EIO": "EIO at {} file-system call of {} verbs (strace)",
    "ENOSPC": "ENOSPC at {} file-system call of {} verbs, and at several writes in a row (strace)",
}
QUICK_EACH = 2  # series of each story and kind, one call of each


def prove(level: str) -> list[Outcome]:
    """Rows by party and kind of fault, and one for the planted bugs."""
    lacking = why_not()
    if lacking:
        rows = [_row(kind, party, level, [], 0.0, lacking) for party in PARTIES for kind in KINDS]
        return [*rows, _command_row(level, 0, lacking), _planted_row([], lacking)]
    seed = chance.SystemRandom().randrange(1 << 32)
    with Crew(min(2, os.cpu_count() or 1)) as crew:
        known = verbs(crew)
        rows = [
            _struck_row(crew, known, kind, party, level, seed)
            for party in PARTIES
            for kind in KINDS
        ]
        rows.append(_command_row(level, seed))
        begun = time.monotonic()
        struck = strike_planted(crew)
        return [*rows, _planted_row(struck, seconds=time.monotonic() - begun)]


PARTIES = ("server", "client", "worker")


def _struck_row(
    crew: Crew, known: Sequence[Verb], kind: str, party: str, level: str, seed: int
) -> Outcome:
    begun = time.monotonic()
    mine = [verb for verb in known if verb.story.startswith(party)]
    chosen = [one for verb in mine for one in verb.series() if one.kind == kind]
    if level != "full":
        chosen = list(sample(mine, kind, QUICK_EACH, chance.Random(f"{seed} {kind} {party}")))
    struck = crew.strike(chosen)
    row = _row(kind, party, level, struck, time.monotonic() - begun)
    return row if level == "full" else replace(row, seeds=str(seed))


def sample(
    known: Sequence[Verb], kind: str, each: int, chosen: chance.Random
) -> Iterator[Series]:
    """Of each story some calls, any call as likely as any other."""
    for verb in known:
        points = [(call, at) for call, count in verb.calls.items() for at in range(1, count + 1)]
        for call, at in chosen.sample(points, min(each, len(points))):
            yield Series(verb.story, call, kind, at=(at,))


def _row(
    kind: str, party: str, level: str, struck: Sequence[Struck], seconds: float, lacking: str = ""
) -> Outcome:
    return Outcome(
        promises=(1, 2, 5),
        method=METHOD[kind].format("every" if level == "full" else "some", party),
        n=sum(one.points for one in struck),
        unit="calls",
        violations=tuple(text for one in struck for text in one.violations),
        seconds=round(seconds, 1),
        not_run=lacking,
        notes=_notes(struck),
    )


def _notes(struck: Sequence[Struck]) -> tuple[str, ...]:
    """How many points by call and by verb."""
    calls: Counter[str] = Counter()
    stories: Counter[str] = Counter()
    for one in struck:
        calls[one.series.call] += one.points
        stories[one.series.story] += one.points
    ends = sum(one.ends for one in struck)
    told = (_list(calls), f"{ends} different spools to go on from")
    return (*told, _list(stories)) if any(not one.series.at for one in struck) else told


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _command_row(level: str, seed: int, lacking: str = "") -> Outcome:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="every-call-") as name:
        folders = [Path(name) / kind for kind in KINDS if not lacking]

        def struck_in(folder: Path) -> tuple[int, list[str]]:
            folder.mkdir()
            some = None if level == "full" else chance.Random(f"{seed} {folder.name}")
            return every_call_command.strike_all(folder, folder.name, some)

        with ThreadPoolExecutor(2) as pool:
            told = list(pool.map(struck_in, folders))
    return Outcome(
        promises=(1, 5),
        method="kill, EIO and ENOSPC at calls of the command `dsage-spool submit` (strace)",
        n=sum(points for points, _ in told),
        unit="calls",
        violations=tuple(text for _, texts in told for text in texts),
        seconds=round(time.monotonic() - begun, 1),
        seeds="" if level == "full" or lacking else str(seed),
        not_run=lacking,
    )


def _planted_row(struck: Sequence[Struck], lacking: str = "", seconds: float = 0.0) -> Outcome:
    missed = [one.series.plant for one in struck if not one.violations]
    return Outcome(
        promises=(1, 2, 5),
        method=f"planted bugs that a fault at a call must show: {', '.join(CATCHES)}",
        n=len(struck),
        unit="bugs",
        violations=tuple(f"not caught: {name}" for name in missed),
        seconds=round(seconds, 1),
        not_run=lacking,
    )


def why_not() -> str:
    """Why nothing can be struck here; asked of a process with one thread, since it forks."""
    asked = subprocess.run(
        [sys.executable, "-m", "proof.tracing"], cwd=TESTS, text=True,
        capture_output=True, timeout=BOUND,
    )  # fmt: skip
    return asked.stdout.strip() if not asked.returncode else asked.stderr.strip()[-200:]


def main(story: str, kind: str, call: str, at: str, more: str = "0") -> None:
    with Crew(1) as crew:
        [struck] = crew.strike([Series(story, call, kind, (int(at),), int(more))])
    print(*struck.violations or [f"{struck.points} struck, no violation"], sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

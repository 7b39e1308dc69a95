"""Overflow and bulk: drops that nobody told the server of, and more files than it may hold.

Claims 1 and 7, with the shipped server as a process of its own: it is stopped while 30,000 jobs are
dropped; it serves the suite's core without events; it meets a million files in a drop box, and jobs
beyond what its book holds. Figures are told as notes. Everything lies in temporary folders, which
are removed again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Iterable, Iterator
from unittest import mock

from dsage_spool import names
from dsage_spool.server import book, look
from dsage_spool.server.look import NAMES_HELD
from dsage_spool.server.serve import RESCAN
from parties import Party, World, wait_until
from proof.bulk_crowd import (
    DEAF, Listing, Person, Witness, book_of, counted, fill_incoming, fill_other_boxes, fill_queue,
    large_folder, listings, peak_memory, server, spool_in,
)  # fmt: skip
from proof.promises import Outcome

TESTS = Path(__file__).resolve().parent.parent
DROPS = 30_000
MOST_MEMORY = 300.0  # MB
CORE = (
    "test_kills", "test_pull", "test_poison", "test_over_ssh", "test_lease", "test_results",
    "test_by_hand", "test_never",
)  # fmt: skip

# -- 1: drops that nobody was told of ------------------------------------------------------------


@dataclass
class Overflow:
    """What came of drops into the incoming/ of a server that was stopped meanwhile."""

    dropped: int
    heard: int = 0  # events that a queue as deaf as the server's had kept
    listed: float = -1.0  # seconds from SIGCONT until the last name had been listed
    admitted: float = -1.0  # until all were admitted
    violations: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        return (
            f"events lost: {self.dropped - self.heard} of {self.dropped}",
            f"all names listed {self.listed:.2f} s after SIGCONT (rescan {RESCAN:g} s)",
            f"all admitted {self.admitted:.1f} s after SIGCONT",
        )


def overflow(world: World, count: int, before: str = "", bound: float = 120.0) -> Overflow:
    person = Person(world, "ada")
    party = server(world, before)
    wait_until(lambda: listings(world), "a first look")
    party.freeze()
    witness = Witness(world.spool / "incoming")
    dropped = person.drop(count)
    found = Overflow(count, witness.told()[0])
    thawed = time.monotonic()
    party.thaw()
    _follow(world, found, thawed, bound)
    found.violations = tuple(_unlike(world, dropped, found))
    return found


def _follow(world: World, found: Overflow, thawed: float, bound: float) -> None:
    end = thawed + bound
    while time.monotonic() < end:
        whole = [one for one in listings(world) if one.passed >= found.dropped]
        if whole and found.listed < 0:
            found.listed = whole[0].ended - thawed
        if counted(world, "queued") >= found.dropped:
            found.admitted = time.monotonic() - thawed
            return
        time.sleep(0.02)


def _unlike(world: World, dropped: list[str], found: Overflow) -> Iterator[str]:
    """Whatever is not as it should be: one line each."""
    if found.admitted < 0:
        lost = len(set(dropped) - set(os.listdir(world.spool / "queued")))
        yield f"{lost} of {found.dropped} drops were not admitted"
    elif missing := set(dropped) - set(os.listdir(world.spool / "queued")):
        yield f"{len(missing)} jobs are counted and not in queued/, {min(missing)} for one"
    if found.listed < 0:
        yield f"no listing saw all {found.dropped} names"


# -- 2: no events at all -------------------------------------------------------------------------


@dataclass(frozen=True)
class Suite:
    passed: int
    failed: int
    skipped: int
    told: str  # the end of what was said, where something failed


def core_without_events(modules: tuple[str, ...] = CORE, chosen: str = "") -> Suite:
    """The suite's core, or what is `chosen` of it, with servers that ask for no events."""
    files = [str(TESTS / f"{module}.py") for module in modules]
    argv = [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", *files]
    argv += ["-o", "addopts=", "-q", "-k", chosen] if chosen else ["-o", "addopts=", "-q"]
    environ = {name: value for name, value in os.environ.items() if name[:7] != "PYTEST_"}
    environ["DSAGE_SPOOL_WATCH"] = "off"
    done = subprocess.run(
        argv, cwd=TESTS.parent, env=environ, capture_output=True, text=True, timeout=900
    )
    told = re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)
    found = {word: int(number) for number, word in told}
    failed = found.get("failed", 0) + found.get("error", 0)
    bad = done.returncode != 0 or failed
    return Suite(
        found.get("passed", 0), max(failed, int(bool(bad))), found.get("skipped", 0),
        done.stdout[-600:] if bad else "",
    )  # fmt: skip


# -- 3: a million files --------------------------------------------------------------------------


@dataclass
class Bulk:
    files: int
    held: int = NAMES_HELD  # names that may be held at once
    memory: float = 0.0  # MB, at the most
    admitted: int = 0
    rejected: int = 0
    listings: tuple[Listing, ...] = ()
    violations: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        longest = max((one.ended - one.began for one in self.listings), default=0.0)
        return (
            f"peak memory {self.memory:.0f} MB (at most {MOST_MEMORY:.0f})",
            f"{self.admitted} admitted, {self.rejected} rejected meanwhile",
            f"{len(self.listings)} listings, the longest {longest:.2f} s",
        )


def flood(count: int, admitted: int, before: str = "", held: int = NAMES_HELD) -> Bulk:
    """So many files lie in incoming/ before the server starts; it serves until some are admitted."""
    with large_folder() as folder, spool_in(folder) as world:
        fill_incoming(world, Person(world, "ada"), count)
        party = server(world, before)
        found = Bulk(count, held)
        _serve_until(world, party, found, lambda: counted(world, "queued") >= admitted)
        return found


def full_book(live: int, count: int, before: str = "") -> Bulk:
    """The book is full of jobs of one owner, and more of hers lie in incoming/; another comes."""
    with large_folder() as folder, spool_in(folder) as world:
        ada, ben = Person(world, "ada"), Person(world, "ben")
        fill_queue(world, ada, live)
        more = set(ada.drop(count))
        party = server(world, before)
        first = ben.drop_one()
        found = Bulk(count)
        _serve_until(world, party, found, lambda: (world.spool / "queued" / first).is_dir())
        put_off = {names.parse_drop(name) for name in os.listdir(world.spool / "incoming")}
        if more - put_off:
            told = f"{len(more - put_off)} jobs were admitted or lost though the book was full"
            found.violations += (told,)
        return found


def other_boxes(count: int, before: str = "") -> Bulk:
    """So many files lie in the boxes of workers and in tmp/; then somebody drops a job."""
    with large_folder() as folder, spool_in(folder) as world:
        fill_other_boxes(world, count)
        party = server(world, before)
        Person(world, "ada").drop(1)
        found, some = Bulk(0), min(count // 5, 4_000)
        _serve_until(
            world, party, found,
            lambda: counted(world, "queued") == 1 and counted(world, "rejected") >= some,
        )  # fmt: skip
        return replace(found, files=count)


def _serve_until(
    world: World, party: Party, found: Bulk, enough: Callable[[], bool], bound: float = 150.0
) -> None:
    end = time.monotonic() + bound
    while party.running and not enough() and time.monotonic() < end:
        time.sleep(0.1)
    found.memory = peak_memory(party.pid) if party.running else 0.0
    found.admitted, found.rejected = counted(world, "queued"), counted(world, "rejected")
    found.listings = tuple(listings(world))
    found.violations = tuple(_not_bounded(party, found, enough()))


def _not_bounded(party: Party, found: Bulk, enough: bool) -> Iterator[str]:
    if not party.running:
        yield f"the server has ended: {party.err[-200:]}"
    if found.memory > MOST_MEMORY:
        yield f"the server became as large as {found.memory:.0f} MB"
    if not enough:
        yield f"only {found.admitted} jobs were admitted in time"
    if held := [one.kept for one in found.listings if one.kept > found.held]:
        yield f"{max(held)} names were held at once"
    if not any(one.passed >= found.files for one in found.listings):
        yield "no listing went through all names"


# -- the same in the simulator, where everything is small ----------------------------------------


@contextmanager
def small_limits() -> Iterator[None]:
    """A book for four jobs, three names of a box held, two looked at in a pass."""
    with ExitStack() as stack:
        for name, value in (("FULL", 4), ("REOPENS", 3), ("AT_MOST", 6), ("SHARE", 1)):
            stack.enter_context(mock.patch.object(book, name, value))
        for name, value in (("NAMES_HELD", 3), ("NAMES_AT_ONCE", 2), ("CLAIMS_AT_ONCE", 2),
                            ("AGAIN_AT_MOST", 1)):  # fmt: skip
            stack.enter_context(mock.patch.object(look, name, value))
        yield


def simulated(seeds: Iterable[int]) -> list[str]:
    """What the simulator finds where the server can hold next to nothing."""
    from simulator.world import run

    with small_limits():
        found = ((seed, run(seed).violations) for seed in seeds)
        return [f"seed {seed} with small limits: {texts[0]}" for seed, texts in found if texts]


# -- all of it -----------------------------------------------------------------------------------


def prove(level: str) -> list[Outcome]:
    full = level == "full"
    outcomes = [
        _overflow_row("server stopped during drops", DROPS),
        _overflow_row("server that hears of no drop", DROPS if full else 3_000, DEAF),
        _core_row(CORE if full else CORE[1:2]),
        _simulated_row(range(300 if full else 40)),
    ]
    if not sys.platform.startswith("linux"):
        return [*outcomes, _not_run((7,), "files in incoming/", "needs /proc to see the memory")]
    method = "server meets this many files in incoming/, one of ten a job"
    outcomes.append(
        _bulk_row(method, lambda: flood(*((1_000_000, 6_000) if full else (200_000, 2_000))))
    )
    method = "server meets this many files of no use in results/, locks/ and tmp/"
    outcomes.append(_bulk_row(method, lambda: other_boxes(1_000_000 if full else 100_000)))
    size, limits = (book.FULL, "") if full else (4_000, book_of(4_000))
    method = f"server with a full book ({size} jobs), this many more of one owner, then another's"
    outcomes.append(_bulk_row(method, lambda: full_book(size, 20_000 if full else 2_000, limits)))
    return outcomes


def _overflow_row(method: str, count: int, before: str = "") -> Outcome:
    began = time.monotonic()
    try:
        Witness(Path(tempfile.gettempdir())).told()
    except (OSError, AttributeError) as error:
        return _not_run((1, 5), method, f"no inotify: {error}")
    with large_folder() as folder, spool_in(folder) as world:
        found = overflow(world, count, before)
    return _row((1, 5), method, count, "drops", found, began)


def _bulk_row(method: str, trial: Callable[[], Bulk]) -> Outcome:
    began = time.monotonic()
    found = trial()
    return _row((1, 7), method, found.files, "files", found, began)


def _core_row(modules: tuple[str, ...]) -> Outcome:
    began, promises = time.monotonic(), (1, 2, 5)
    suite = core_without_events(modules)
    method = f"the suite's core without events: {', '.join(modules)}"
    violations = (f"{suite.failed} tests failed: {suite.told}",) if suite.failed else ()
    notes = (f"{suite.passed} passed, {suite.failed} failed, {suite.skipped} skipped",)
    seconds = time.monotonic() - began
    return Outcome(promises, method, suite.passed, "tests", violations, seconds, notes=notes)


def _simulated_row(seeds: range) -> Outcome:
    began, method = time.monotonic(), "simulator, server with room for 4 jobs and 3 names of a box"
    violations = tuple(simulated(seeds))
    seconds, told = time.monotonic() - began, f"{seeds[0]}-{seeds[-1]}"
    return Outcome((1, 2, 5), method, len(seeds), "seeds", violations, seconds, told)


def _row(
    promises: tuple[int, ...], method: str, n: int, unit: str, found: Overflow | Bulk, began: float
) -> Outcome:
    seconds = time.monotonic() - began
    return Outcome(promises, method, n, unit, found.violations, seconds, notes=found.notes)


def _not_run(promises: tuple[int, ...], method: str, reason: str) -> Outcome:
    return Outcome(promises, method, 0, "", not_run=reason)

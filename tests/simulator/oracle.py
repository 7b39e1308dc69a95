"""Knows what was acknowledged, run and published, and says at once when a promise is broken.

It looks at the disk as `ls` would, never through the parties, and costs nothing where nothing moved.
"""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Collection

from dsage_spool import layout, names
from dsage_spool.states import JOB_FOLDERS, TERMINAL, State
from format_doc import broken_rules
from memory_files import Inode

from .disk import Change, Disk
from .machines import Simulation

FINAL = TERMINAL - {State.REJECTED}


class Violation(AssertionError):
    """A promise is broken; the text says which, and how it shows."""


@dataclass
class Expected:
    """One job of an honest person."""

    owner: str
    value: int
    what: str  # ok, raises, kills
    attempts: int
    seconds: float
    after: tuple[str, ...] = ()
    signed: dict[str, bytes] = field(default_factory=dict)  # envelope and payload, as they were signed
    acked: bool = False
    asked: set[str] = field(default_factory=set)  # verbs of requests that were sent


@lru_cache(4096)
def _broken(state: str, inside: frozenset[str]) -> tuple[str, ...]:
    return tuple(broken_rules(state, set(inside)))


class Oracle:
    def __init__(self, sim: Simulation, disk: Disk) -> None:
        self.sim, self.disk = sim, disk
        self.jobs: dict[str, Expected] = {}
        self.acked: set[str] = set()
        self.runs: Counter[str] = Counter()  # executions by job
        self.ran: dict[tuple[str, int], str] = {}
        self.published: dict[str, tuple[str, dict[str, bytes]]] = {}
        self.acked_at: dict[str, float] = {}  # true time, as all here
        self.started_at: dict[str, float] = {}
        self.violations: list[str] = []
        self._folders = {id(disk.root.entries[str(s)]): s for s in JOB_FOLDERS}
        self._results = disk.root.entries[layout.RESULTS]
        self._locks = disk.root.entries[layout.LOCKS]
        self._deliveries: dict[str, bytes] = {}  # what workers have put there, by name
        self.forged: set[str] = set()  # names in results/ that somebody else has written to
        self._incoming = disk.root.entries[layout.INCOMING]
        disk.on_change, disk.on_write = self._changed, self._written
        disk.on_beat = lambda path: self.beats.__setitem__(path.rpartition("/")[2], sim.now)
        self.beats: dict[str, float] = {}  # run: when it was last heard, in true time
        self._silent: dict[str, float] = {}  # run: seconds of silence when the server last looked
        self.on_drop = lambda: None
        self.on_moment = lambda: None

    def fail(self, text: str) -> None:
        self.sim.tell("ORACLE", f"VIOLATION: {text}")
        self.violations.append(f"at {self.sim.now:.3f} s: {text}")

    # -- what the parties say ------------------------------------------------------------------

    def submitted(self, job: str, expected: Expected) -> None:
        self.jobs[job] = expected

    def acknowledged(self, job: str) -> None:
        self.jobs[job].acked = True
        self.acked.add(job)
        self.acked_at[job] = self.sim.now
        self.sim.tell("ORACLE", f"{job} is acknowledged")
        self._must_exist(job)
        self.on_moment()

    def began(self, job: str, attempt: int, run: str, signed_by: str) -> None:
        """A payload was opened and runs."""
        self.sim.tell("ORACLE", f"{job}.{attempt} runs at {run}")
        known = self.jobs.get(job)
        if known is None or known.owner != signed_by:
            return self.fail(f"{job}: executed, and nobody honest has signed it")
        self.on_moment()
        self.runs[job] += 1
        self.started_at.setdefault(job, self.sim.now)
        if (job, attempt) in self.ran:
            self.fail(f"{job}: attempt {attempt} ran at {self.ran[job, attempt]} and again at {run}")
        self.ran[job, attempt] = run
        if self.runs[job] > known.attempts:
            self.fail(f"{job}: executed {self.runs[job]} times, and it has {known.attempts} attempts")

    def looked_at(self, run: str) -> None:
        """The server looks at a heartbeat file."""
        self._silent[run] = self.sim.now - self.beats.get(run, float("-inf"))

    def expired(self, run: str, lease: float) -> None:
        """The server takes back what a run has claimed. No clock runs faster than 1.05 times the time."""
        silent = self._silent.get(run, float("inf"))
        if silent < lease / 1.06:
            self.fail(f"worker {run} is given up, and was heard {silent:.3f} s ago")

    def _written(self, path: str, data: bytes) -> None:
        place, _, name = path.rpartition("/")
        if place == layout.JOURNAL:
            self._told(data)
        elif name == layout.VERDICT or name.startswith("lease."):
            self.on_moment()

    def _told(self, lines: bytes) -> None:
        """What the journal says has happened, and is on stable storage where it is an end."""
        ends = {words[1]: words[4] for line in lines.decode().splitlines() if (words := line.split(" "))}
        for job, state in ends.items():
            if names.is_job(job) and state not in self.states(job):
                self.fail(f"{job}: the journal says {state}, and it is in {self.states(job)}")
            elif names.is_job(job) and State(state) in FINAL and not self._is_safe(job, state):
                self.fail(f"{job}: the journal says {state}, and a power failure could undo it")

    def _is_safe(self, job: str, state: str) -> bool:
        folder = self.disk.root.entries[state]
        forced = any(effect.forced for effect in self.disk.pending if self._enters(effect, folder, job))
        return forced or folder.safe_entries.get(job) is folder.entries[job]

    def _enters(self, effect, folder: Inode, job: str) -> bool:
        return any(f is folder and name == job and inode for f, name, inode in effect.changes)

    def collected(self, job: str, value: object) -> None:
        """A client was told that this is the result."""
        if value != self.jobs[job].value:
            self.fail(f"{job}: a client got {value!r} for {self.jobs[job].value}")

    # -- the disk ------------------------------------------------------------------------------

    def _changed(self, changes: tuple[Change, ...]) -> None:
        noticed = False
        for folder, name, inode in changes:
            if folder is self._locks and inode is not None:
                self.on_moment()
            if folder is self._results:
                self._delivered(name, inode)
            state = self._folders.get(id(folder))
            if state is not None:
                self._moved(state, name, inode, changes)
            elif folder is self._incoming and inode is None and name.endswith(".job"):
                if name[:-4] in self.acked:
                    self._must_exist(name[:-4])
            noticed = noticed or (inode is not None and state is None)
        if noticed:
            self.on_drop()

    def _delivered(self, name: str, inode: Inode | None) -> None:
        """What a worker has delivered is never replaced by something else, by nobody."""
        if inode is None or name in self.forged:
            self._deliveries.pop(name, None)
        elif name.endswith(".result") and self._deliveries.setdefault(name, inode.data) != inode.data:
            self.fail(f"results/{name}: a delivery is replaced by another one")

    def _moved(self, state: State, job: str, inode: Inode | None, changes) -> None:
        if inode is not None:
            found = self.states(job)
            if len(found) > 1 and len(changes) == 1:
                self.fail(f"{job}: is in {found}")
            if state in FINAL:
                self._published(job, state, inode)
            elif job in self.published:
                self.fail(f"{job}: was {self.published[job][0]} and is {state} again")
            elif state is not State.REJECTED:
                self._accepted(job, state, inode)
            if state is State.REJECTED and job in self.acked:
                self.fail(f"{job}: acknowledged, and now rejected: {self._verdict(inode)}")
        elif job in self.acked:
            self._must_exist(job)

    def _accepted(self, job: str, state: State, folder: Inode) -> None:
        """What lies in a state folder is what an honest person has signed, byte for byte."""
        known = self.jobs.get(job)
        if known is None:
            return self.fail(f"{job}: {state}, and nobody honest has signed it")
        for name, data in known.signed.items():
            inode = folder.entries.get(name)
            if inode is not None and inode.data != data:
                self.fail(f"{state}/{job}: {name} is not what was signed")

    def _verdict(self, folder: Inode) -> str:
        verdict = folder.entries.get(layout.VERDICT)
        return verdict.data.decode("utf-8", "replace").strip() if verdict else "?"

    def _published(self, job: str, state: State, folder: Inode) -> None:
        parts = {n: i.data for n, i in folder.entries.items() if not n.startswith(("late.", "lease."))}
        if job not in self.published:
            self.on_moment()
        known = self.published.setdefault(job, (str(state), parts))
        if known != (str(state), parts):
            differ = sorted(n for n in {*known[1], *parts} if known[1].get(n) != parts.get(n))
            self.fail(f"{job}: was {known[0]} and is {state} now, with other {', '.join(differ)}")
        if state is State.DONE and job not in self.jobs:
            self.fail(f"{job}: done, and nobody honest has submitted it")

    def states(self, job: str) -> list[str]:
        entries = self.disk.root.entries
        return [str(s) for s in JOB_FOLDERS if job in entries[str(s)].entries]

    def _must_exist(self, job: str) -> None:
        if not self.states(job) and f"{job}.job" not in self._incoming.entries:
            self.fail(f"{job}: acknowledged, and it is nowhere")

    # -- at rest -------------------------------------------------------------------------------

    def look_around(self) -> None:
        """After a power failure: whatever was acknowledged is there."""
        self._deliveries = {n: i.data for n, i in self._results.entries.items() if n not in self.forged}
        for job in sorted(self.acked):
            self._must_exist(job)

    def check_matrix(self, unreadable: Collection[str] = ()) -> None:
        """No pass is under way: each folder that the disk gives has the files that its state allows."""
        for state in JOB_FOLDERS:
            for job, folder in self.disk.root.entries[str(state)].entries.items():
                if job[0] == "." or job in unreadable:
                    continue
                for rule in _broken(str(state), frozenset(folder.entries)):
                    self.fail(f"{state}/{job}: {rule}")
                if state in FINAL and job in self.published:
                    self._still_published(job, state, folder)
                if state is not State.REJECTED:
                    self._accepted(job, state, folder)

    def _still_published(self, job: str, state: State, folder: Inode) -> None:
        _, parts = self.published[job]
        for name, data in parts.items():
            inode = folder.entries.get(name)
            if inode is None or inode.data is not data and inode.data != data:
                self.fail(f"{state}/{job}: {name} has changed since it was published")

    def waiting(self) -> list[str]:
        """Acknowledged jobs that have not ended."""
        return sorted(job for job in self.acked if not set(self.states(job)) & set(map(str, FINAL)))

    def check_ends(self) -> None:
        """All faults are over for long: everything has ended, as it should."""
        for job in self.waiting():
            self.fail(f"{job}: never ended; it is in {self.states(job) or 'nowhere'}")
        for job in sorted(self.acked & self.published.keys()):
            self._check_end(job, self.jobs[job], self.published[job])
        for path in self.leftovers():
            self.fail(f"{path}: left over")

    def leftovers(self) -> list[str]:
        """What lies in the drop boxes of jobs that have ended."""
        return [
            f"{box}/{name}"
            for box in (layout.INCOMING, layout.LOCKS, layout.RESULTS)
            for name in self.disk.root.entries[box].entries
            if name[0] != "." and self._has_ended(name)
        ]

    def _has_ended(self, name: str) -> bool:
        return name.split(".")[0] in self.published and not name.endswith(".out")

    def _check_end(self, job: str, known: Expected, end: tuple[str, dict[str, bytes]]) -> None:
        state, parts = end
        verdict = parts.get(layout.VERDICT, b"").decode("utf-8", "replace")
        allowed = {"ok": {"done"}, "raises": {"failed"}, "kills": {"failed"}}[known.what]
        lost = " lost " in verdict or "held while" in verdict
        if lost and self.runs[job] <= known.attempts:
            allowed = allowed | {"failed"}
        if "cancel" in known.asked or any(self._ended_badly(other) for other in known.after):
            allowed = allowed | {"cancelled"}
        if state == "done" and parts.get(layout.RESULT) != pickle.dumps(known.value):
            self.fail(f"{job}: done with another result than its own")
        if state not in allowed:
            self.fail(f"{job}: {known.what} job ended {state}: {verdict.strip()}")

    def _ended_badly(self, job: str) -> bool:
        return self.published.get(job, ("done",))[0] != "done"


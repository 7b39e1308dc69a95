"""SSH between machines, as parties notice it: requests that take time, are lost, or come late.

A line is one SFTP session. Requests that were sent live on without their sender: a process may be
dead when the host carries out what it asked for. A line that was cut looks silent, and the party
gives it up after a while; one that was reset ends at once.
"""

from __future__ import annotations

from typing import Any

from dsage_spool.errors import SpoolError, Unreachable
from dsage_spool.files import Files, Stat

from .disk import Disk
from .machines import Machine, Process, Simulation, Task

APART = 2e-5  # seconds between two requests that were sent together
SILENCE = 0.6  # of a lease, until a party gives up a line on which nothing comes
LATEST = 2.0  # leases for which a host may still have a request of a line that was cut

Row = tuple[str, tuple]


class Network:
    """The box is one end of every line. `lossy`: the chance that a batch meets with an accident."""

    def __init__(self, sim: Simulation, box: Machine, disk: Disk, lease: float) -> None:
        self.silence, self.latest = SILENCE * lease, LATEST * lease
        self.sim, self.box, self.disk = sim, box, disk
        self.lossy, self.trip = 0.0, sim.chance.choice((0.001, 0.01, 0.05))
        self._cut_until: dict[str, float] = {}
        self.lines: list[Line] = []
        self.trouble = None  # of the disk: called with an operation, may raise

    def cut(self, machine: str, seconds: float) -> None:
        self.sim.tell("network", f"{machine} is cut off for {seconds:.1f} s")
        self._cut_until[machine] = self.sim.now + seconds

    def heal(self) -> None:
        self.lossy = 0.0
        self._cut_until.clear()

    def open_until(self, machine: str) -> float:
        """When messages can pass again; now, if they can."""
        return max(self._cut_until.get(machine, 0.0), self.sim.now)

    def is_cut(self, machine: str) -> bool:
        return self._cut_until.get(machine, 0.0) > self.sim.now

    def reset_all(self) -> None:
        """sshd and all its sessions are killed."""
        self.sim.tell("network", "all lines are reset")
        for line in self.lines:
            line.reset()
        self.lines = []

    def connect(self, process: Process) -> RemoteFiles:
        process.counts()
        process.pause(3 * self.trip)
        if self.is_cut(process.machine.name) or not self.box.up or self._unlucky():
            process.pause(self.silence * self.sim.chance.random())
            raise Unreachable(f"{self.box.name}: no answer")
        line = Line(self, process)
        self.lines.append(line)
        return RemoteFiles(line)

    def _unlucky(self) -> bool:
        return self.lossy > 0 and self.sim.chance.random() < self.lossy


class Line:
    def __init__(self, network: Network, process: Process) -> None:
        self.network, self.process, self.dead = network, process, False
        self._waiting: tuple[Task, int] | None = None
        self._batches: list[Batch] = []

    def reset(self) -> None:
        self.dead = True
        for batch in self._batches:
            batch.broken = True
        if self._waiting:
            task, ticket = self._waiting
            self.network.sim.after(self.network.trip, task.wake, ticket, None)

    def ask(self, rows: list[Row]) -> list[Any]:
        """An answer or a SpoolError for each row, in order; Unreachable for all that was lost."""
        process, network = self.process, self.network
        strikes = process.counts()
        if self.dead or not rows:
            return [_lost() for _ in rows]
        batch = Batch(self, rows, strikes and process.fault != "freeze")
        self._batches.append(batch)
        network.sim.after(network.trip, batch.arrive)
        if strikes and process.fault != "freeze":
            process.die()  # what was sent is on its way
        self._waiting = (process.task, process.task.ticket)
        process.pause(network.silence)
        self._waiting = None
        if strikes:
            process.freeze()  # the answer is there, and nobody reads it
        self._batches.remove(batch)
        if not batch.answered:
            self.dead = True
        return [_lost() if outcome is None else outcome[0] for outcome in batch.outcomes]

    def answered(self) -> None:
        if self._waiting:
            task, ticket = self._waiting
            task.wake(ticket, None)


class Batch:
    """Requests that travel together; carried out one after the other, others in between."""

    def __init__(self, line: Line, rows: list[Row], orphan: bool) -> None:
        self.line, self.rows, self.place = line, rows, 0
        self.outcomes: list[tuple | None] = [None] * len(rows)
        self.answered = self.broken = False
        chance, network = line.network.sim.chance, line.network
        unlucky = orphan or network._unlucky()
        # It breaks after so many requests were carried out; of their answers some come back.
        self.breaks_at = chance.randint(0, len(rows)) if unlucky else len(rows) + 1
        self.late = unlucky and chance.random() < 0.3
        self.boot = network.box.boot_offset

    def arrive(self) -> None:
        network, sim = self.line.network, self.line.network.sim
        name = self.line.process.machine.name
        if network.is_cut(name):
            # The host may hear it when the line is whole again, or never.
            when = network.open_until(name) + sim.chance.random()
            if when - sim.now < network.latest and sim.chance.random() < 0.5:
                sim.at(when, self.arrive)
            self.breaks_at = min(self.breaks_at, len(self.rows))
        elif self.late:
            self.late = False
            sim.after(sim.chance.uniform(0, network.latest), self.arrive)
        else:
            self._carry_out()

    def _carry_out(self) -> None:
        network, sim = self.line.network, self.line.network.sim
        while self.place < len(self.rows):
            if self.broken or not network.box.up or self.place == self.breaks_at:
                return self._break()
            if network.box.asleep_until > sim.now:
                return sim.at(network.box.asleep_until, self._carry_out)
            self.outcomes[self.place] = (self._outcome(*self.rows[self.place]),)
            self.place += 1
            if not sim.may_go_on(sim.now + APART):
                return sim.after(APART, self._carry_out)
            sim.now += APART
        if self.breaks_at > len(self.rows):
            sim.after(network.trip, self._come_back)
        else:
            self._break()

    def _break(self) -> None:
        """The line is lost; answers that were on their way may have arrived before."""
        self.line.network.sim.tell(
            self.line.process.name, f"line lost after {self.place} of {len(self.rows)} requests"
        )
        known = self.line.network.sim.chance.randint(0, self.place)
        self.outcomes[known:] = [None] * (len(self.rows) - known)

    def _come_back(self) -> None:
        if self.line.network.is_cut(self.line.process.machine.name) or self.broken:
            return self._break()
        self.answered = True
        self.line.answered()

    def _outcome(self, name: str, arguments: tuple) -> Any:
        network = self.line.network
        network.sim.operations += 1
        try:
            if network.trouble:
                network.trouble(name, arguments)
            outcome = getattr(network.disk, name)(*arguments)
        except SpoolError as error:
            outcome = error
        if network.sim.story is not None:
            network.sim.tell(self.line.process.name, told(name, arguments, outcome))
        return outcome


def told(name: str, arguments: tuple, outcome: Any) -> str:
    """One operation, for the story."""
    shown = " ".join(_shown(argument) for argument in arguments)
    end = f" -> {type(outcome).__name__}" if isinstance(outcome, Exception) else ""
    return f"{name} {shown}{end}"


def _shown(argument: Any) -> str:
    return f"({len(argument)} bytes)" if isinstance(argument, bytes) else str(argument)


def _lost() -> Unreachable:
    return Unreachable("box: connection lost")


class RemoteFiles(Files):
    """The spool over one line, in the steps in which `conversations` does it."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def _one(self, name: str, *arguments: Any) -> Any:
        [outcome] = self.many(name, [arguments])
        if isinstance(outcome, SpoolError):
            raise outcome
        return outcome

    def many(self, operation: str, rows: Any) -> list[Any]:
        rows = list(rows)
        if operation == "drop":
            return self._drop_many(rows)
        outcomes = self._line.ask([(operation, row) for row in rows])
        return [_as_seen(outcome) for outcome in outcomes] if operation == "stat" else outcomes

    def _drop_many(self, rows: list[tuple]) -> list[Any]:
        """Write all, flush all, rename all: a step of a drop is sent when the one before has come."""
        outcomes: list[Any] = [None] * len(rows)
        steps = (
            lambda row: ("write", (row[0], row[2])),
            lambda row: ("sync", ([row[0]],)),
            lambda row: ("move", (row[0], row[1])),
        )
        for step in steps:
            going = [place for place, outcome in enumerate(outcomes) if outcome is None]
            answers = self._line.ask([step(rows[place]) for place in going])
            for place, answer in zip(going, answers):
                outcomes[place] = answer
        return outcomes

    def names(self, folder: str, limit: int | None = None) -> list[str]:
        return self._one("names", folder, limit)

    def stat(self, path: str) -> Stat:
        return self._one("stat", path)

    def read(self, path: str, limit: int) -> bytes:
        return self._one("read", path, limit)

    def read_from(self, path: str, offset: int, limit: int) -> bytes:
        return self._one("read_from", path, offset, limit)

    def write(self, path: str, data: bytes) -> None:
        self._one("write", path, data)

    def append(self, path: str, data: bytes) -> None:
        self._one("append", path, data)

    def drop(self, tmp: str, path: str, data: bytes) -> None:
        self._one("drop", tmp, path, data)

    def resize(self, path: str, size: int) -> None:
        self._one("resize", path, size)

    def link(self, source: str, path: str) -> None:
        self._one("link", source, path)

    def move(self, source: str, path: str) -> None:
        self._one("move", source, path)

    def make_folder(self, path: str) -> None:
        self._one("make_folder", path)

    def remove(self, path: str) -> None:
        self._one("remove", path)

    def sync(self, paths: Any) -> None:
        for outcome in self._line.ask([("sync", ([path],)) for path in paths]):
            if isinstance(outcome, SpoolError):
                raise outcome

    def now(self) -> float:
        return float(int(self._one("now")))

    def close(self) -> None:
        self._line.dead = True


def _as_seen(outcome: Any) -> Any:
    """Over SFTP stamps are whole seconds, and inodes cannot be seen."""
    if isinstance(outcome, Stat):
        return Stat(outcome.kind, outcome.size, float(int(outcome.mtime)))
    return outcome

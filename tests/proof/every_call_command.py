"""The command `dsage-spool submit` itself, struck at each call that touches spool or home.

strace starts it, so its counters begin with Python's own start: a first run tells which of the
calls of each name touch the spool or the home, and those are struck. A run where the fault met
another call, since Python's start took another way, is not counted.
"""

from __future__ import annotations

import os
import random as chance
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Sequence

from dsage_spool import layout
from dsage_spool.cli import making
from dsage_spool.clock import SystemClock
from dsage_spool.config import Config
from dsage_spool.errors import SpoolError
from dsage_spool.files import LocalFiles
from dsage_spool.server.serve import Server
from dsage_spool.spool import reading
from dsage_spool.states import State

from .tracing import BOUND, NOT_OF_FILES, OF_FILES, Fault

_CALL = re.compile(r"([a-z_0-9]+)\(")


@dataclass
class Place:
    """A spool, and a person's home, that the calls are looked for in."""

    root: Path
    acknowledged: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = self.root.resolve()
        (self.root / "home").mkdir()
        config = Config(self.root / "home", {"LOGNAME": "alice"}, {})
        making.init_spool(str(self.root / "spool"), config, user="alice", worker="desk", lease=60)
        self.files = LocalFiles(self.root / "spool")

    def submit(self, options: Sequence[str]) -> subprocess.CompletedProcess:
        environment = {"HOME": str(self.root / "home"), "LOGNAME": "alice", "LANG": "C.UTF-8"}
        kept = ("PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
        environment |= {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {"PYTHONHASHSEED": "0", "DSAGE_SPOOL_SPOOL": str(self.root / "spool")}
        command = [sys.executable, "-m", "dsage_spool", "submit", "2+2"]
        return subprocess.run(
            ["strace", "-f", "-y", "-o", str(self.root / "trace"), *options, *command],
            cwd=self.root, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=BOUND,
        )  # fmt: skip

    def calls(self) -> list[str]:
        """Without the number of the process that strace writes first."""
        lines = (self.root / "trace").read_text(errors="replace").splitlines()
        return [line.partition(" ")[2].lstrip() for line in lines]

    def is_ours(self, line: str) -> bool:
        return f"{self.root}/" in line


def faults(place: Place) -> list[tuple[str, int]]:
    """The calls that touch spool or home: the name of each, and its number among those so named."""
    for _ in range(2):  # the first makes folders in the home
        place.acknowledged.append(place.submit(["-e", f"trace={OF_FILES}"]).stdout.strip())
    counts: dict[str, int] = {}
    found = []
    for line in place.calls():
        name = _CALL.match(line)
        if name and name[1] not in NOT_OF_FILES:
            counts[name[1]] = counts.get(name[1], 0) + 1
            if place.is_ours(line):
                found.append((name[1], counts[name[1]]))
    return found


def strike(place: Place, fault: Fault) -> tuple[bool, list[str]]:
    """Whether one of ours was struck, and what is wrong afterwards."""
    done = place.submit(fault.options)
    struck = [line for line in place.calls() if "(INJECTED" in line or "= ?" in line]
    met = any(map(place.is_ours, struck))
    job = done.stdout.strip() if not done.returncode else ""
    if job:
        place.acknowledged.append(job)
    return met, [f"dsage-spool submit: {fault}: {text}" for text in _wrong(place, fault, done)]


def _wrong(place: Place, fault: Fault, done: subprocess.CompletedProcess) -> Iterator[str]:
    if fault.kind != "KILL" and "Traceback" in done.stderr:
        yield f"a traceback: {done.stderr.strip().splitlines()[-1]}"
    try:
        server = Server(place.files, SystemClock(), secrets.token_bytes, lambda text: None)
        server.open()
        while server.one_pass():
            pass
        states = reading.states_of(place.files, place.acknowledged)
    except SpoolError as error:
        yield f"the server cannot go on: {error.message}"
        return
    lost = [job for job, state in zip(place.acknowledged, states) if state is not State.QUEUED]
    if lost:
        yield f"acknowledged, and not queued: {lost}"
    if left := [*place.files.names(layout.INCOMING), *place.files.names("rejected")]:
        yield f"half a job was dropped: {left}"


def strike_all(folder: Path, kind: str, chosen: chance.Random | None) -> tuple[int, list[str]]:
    """All the calls one after another, or three by chance; how many were met, and what is wrong."""
    place = Place(folder)
    points = faults(place)
    struck, wrong = 0, []
    for call, at in chosen.sample(points, 3) if chosen else points:
        met, texts = strike(place, Fault(call, kind, at))
        struck += met
        wrong += texts
    return struck, wrong

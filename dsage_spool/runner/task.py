"""What goes to a slot and what comes back, and the frames that carry them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .frames import Frame, frame


@dataclass(frozen=True)
class Task:
    """One attempt at one job, with the bytes as they lie in the spool. Nothing here is verified.

    Where `spool` is given, the child refuses an envelope that was signed for another one.
    """

    job: str
    attempt: int
    envelope: bytes
    signature: bytes
    payload: bytes
    spool: str = ""

    def frame(self) -> list[bytes]:
        header = {"do": "task", "job": self.job, "attempt": self.attempt, "spool": self.spool}
        return frame(header, self.envelope, self.signature, self.payload)


@dataclass(frozen=True)
class Ended:
    """How one attempt ended. `outcome` is a word of `records.OUTCOMES`.

    `started` (seconds since 1970) is 0 where the job never began. Times are in seconds, memory in
    bytes. `parts` has result, stdout, stderr and traceback by `layout` name, empty ones left out.
    """

    job: str
    attempt: int
    outcome: str
    exit: int = 0
    signal: int = 0
    error: str = ""
    value: str = ""
    codec: str = ""
    started: float = 0.0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    parts: dict[str, bytes] = field(default_factory=dict)

    def frame(self) -> list[bytes]:
        header = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)}
        header["parts"] = list(self.parts)
        return frame({"do": "ended", **header}, *self.parts.values())


def task_of(message: Frame) -> Task:
    header, blobs = message
    return Task(header["job"], header["attempt"], *blobs, spool=header["spool"])


def ended_of(message: Frame) -> Ended:
    header, blobs = message
    values: dict[str, Any] = {key: value for key, value in header.items() if key != "do"}
    values["parts"] = dict(zip(values["parts"], blobs))
    return Ended(**values)

"""What one look of the server at its drop boxes has found; the input of `decide`. Pure data.

`about` is the job that an observation is about.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..records import Envelope, Receipt, Request, Worker
from ..states import State


@dataclass(frozen=True)
class JobDropped:
    """A job file whose signature, sizes and hashes are right, as it was read: admit these bytes."""

    path: str
    envelope: Envelope
    parts: dict[str, bytes]
    known: State | None = None  # the job has ended, or is no job: in this state folder
    known_digest: bytes = b""  # sha256 of the envelope that lies there
    fates: dict[str, State | None] = field(default_factory=dict)  # of ended jobs named in `after`
    coming: frozenset[str] = frozenset()  # jobs named in `after` that still lie in incoming/

    @property
    def about(self) -> str:
        return self.envelope.job


@dataclass(frozen=True)
class Requested:
    path: str
    request: Request
    known: State | None = None
    dropped: bool = False  # the file of its job still lies in incoming/

    @property
    def about(self) -> str:
        return self.request.job


@dataclass(frozen=True)
class Unacceptable:
    """Something in a drop box that nobody can use. `job` only if no real job goes by that name."""

    path: str
    reason: str
    job: str = ""

    @property
    def about(self) -> str:
        return self.job


@dataclass(frozen=True)
class ClaimSeen:
    path: str
    job: str
    attempt: int
    worker: Worker
    enrolled: bool = True  # the roster has this worker

    @property
    def about(self) -> str:
        return self.job


@dataclass(frozen=True)
class Delivered:
    """A delivery whose signature and hashes are right."""

    path: str
    receipt: Receipt
    parts: dict[str, bytes]
    known: State | None = None  # where the job lies, if it has ended
    served: bool = False  # its receipt is the one that lies there

    @property
    def about(self) -> str:
        return self.receipt.job


@dataclass(frozen=True)
class RunLost:
    run: str
    about: str = ""  # no single job


Seen = JobDropped | Requested | Unacceptable | ClaimSeen | Delivered | RunLost

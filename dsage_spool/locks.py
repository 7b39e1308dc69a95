"""The door to filelock: one server for a spool, one worker of a name on a machine.

The kernel gives such a lock back when its holder dies, however it dies. On local disks only; claims
on jobs are made otherwise (`spool.dropping.claim`).
"""

from __future__ import annotations

import os

from .errors import Busy


class SoleHolder:
    """Held from construction to `close`; Busy at once if somebody else holds it."""

    def __init__(self, path: str | os.PathLike, what: str, hint: str = "") -> None:
        from filelock import FileLock, Timeout

        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        self._lock = FileLock(path)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise Busy(f"{what} is running already: it holds {path}", hint) from None

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> SoleHolder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

"""The heartbeat of one worker: one small write renews all its leases.

Runs on a thread of its own with a channel of its own, so that a long transfer cannot delay it. The
other end of the coupling is `server.leases`.
"""

from __future__ import annotations

import threading
from typing import Any, Callable

from ..clock import Clock
from ..errors import Gone, SpoolError, Unreachable
from ..files import Files
from ..spool import dropping
from ..timing import Times


class Heart:
    """`confirmed` is when the last write was sent that is known to have arrived, in boot time."""

    def __init__(self, clock: Clock, times: Times, run: str, size: int) -> None:
        self._clock = clock
        self._times = times
        self._run = run
        self._size = size
        self._beats = 0
        self.confirmed = clock.boottime()
        self.lost = False  # the server took the heartbeat file away

    def beat(self, files: Files) -> None:
        """Renew; counts from the time of sending, since that is the latest the server can have seen."""
        sent = self._clock.boottime()
        self._beats += 1
        try:
            dropping.renew(files, self._run, self._size, self._beats)
        except Gone:
            self.lost = True
            raise
        self.confirmed = sent

    def must_stop(self) -> bool:
        """Too long without a confirmed heartbeat: somebody else may have our jobs soon."""
        return self.lost or self._clock.boottime() - self.confirmed > self._times.give_up


class HeartThread:
    """Beats in the background; after a lost connection it waits for `use` with a new one.

    `threads` has `Condition` and `Thread` as the module `threading` has them.
    """

    def __init__(self, heart: Heart, times: Times, threads: Any = threading) -> None:
        self._heart = heart
        self._pause = times.heartbeat
        self._files: Files | None = None
        self._open: Callable[[], Files] | None = None
        self._changed = threads.Condition()
        self._stopped = False
        self._thread = threads.Thread(target=self._run, name="heart", daemon=True)
        self._thread.start()

    def use(self, open_files: Callable[[], Files] | None) -> None:
        """Beat over a new connection, from now on; None: there is none."""
        with self._changed:
            self._open = open_files
            self._files = None
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._stopped:
                    self._changed.wait(self._pause)
                if self._stopped:
                    return
                opener = self._open
            if opener:
                self._beat_over(opener)

    def _beat_over(self, opener: Callable[[], Files]) -> None:
        try:
            if self._files is None:
                self._files = opener()
            self._heart.beat(self._files)
        except Unreachable:
            self._forget(opener)
        except SpoolError:
            pass  # told by `lost`, or the disk is full: the next beat tries again

    def _forget(self, opener: Callable[[], Files]) -> None:
        with self._changed:
            if self._open is opener:
                self._open = None
            self._files = None

    def close(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(self._pause + 10)

"""The clocks a party may look at, handed in so that tests and simulators can turn them.

`boottime` goes on while the machine sleeps and never jumps: leases are judged by it. `wall` is for
people and for the dates that people signed. All in seconds.
"""

from __future__ import annotations

import time


class Clock:
    def boottime(self) -> float:
        raise NotImplementedError

    def wall(self) -> float:
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class SystemClock(Clock):
    def boottime(self) -> float:
        # Where there is no CLOCK_BOOTTIME (macOS), CLOCK_MONOTONIC goes on during sleep or stops
        # with the whole machine; either way it does not jump back.
        return time.clock_gettime(_BOOT) if _BOOT is not None else time.monotonic()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))


_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


def stamp(moment: float) -> str:
    """`2026-11-22T23:21:40Z`, for people and the journal."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))

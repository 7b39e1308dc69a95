"""Which workers still live: by watching whether their heartbeat files change.

Pure. Only change counts, seen on the server's own boot-time clock; the time stamps themselves are
never compared with a clock, so neither skew nor a forged date matters. The other end of this
coupling is `worker.heart`; `timing.Times.holds` is the inequality between them.
"""

from __future__ import annotations

from typing import Hashable, Iterable

from ..timing import Times


class Leases:
    def __init__(self, times: Times) -> None:
        self._times = times
        self._seen: dict[str, tuple[Hashable, float]] = {}  # run: fingerprint, when it changed
        self._looked = float("-inf")

    def due(self, now: float) -> bool:
        return now - self._looked >= self._times.watch

    def observe(
        self, now: float, fingerprints: dict[str, Hashable | None], after: float | None = None
    ) -> list[str]:
        """Note what the heartbeat files of the watched runs look like; the runs that are lost.

        None stands for a file that is gone, which is no change. After a pause of the server (it was
        stopped, or the machine slept) all observations start anew: the workers may have lived.
        `now` is before the files were looked at, `after` when that was done: a change counts from
        then, and silence only up to the former, in case the server stood still in between.
        """
        if now - self._looked > self._times.server_gap:
            self._seen.clear()
        self._looked = now
        for run in self._seen.keys() - fingerprints.keys():
            del self._seen[run]
        for run, fingerprint in fingerprints.items():
            self._note(run, fingerprint, now if after is None else after)
        return [run for run, (_, at) in self._seen.items() if now - at > self._times.lease]

    def _note(self, run: str, fingerprint: Hashable | None, now: float) -> None:
        known = self._seen.get(run)
        if known is None or (fingerprint is not None and fingerprint != known[0]):
            self._seen[run] = (fingerprint, now)

    def forget(self, runs: Iterable[str]) -> None:
        for run in runs:
            self._seen.pop(run, None)

"""The server's tidying: what nobody will come back for. Never a job, never anything younger than a day."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Callable, Iterable

from .. import layout, names
from ..errors import FileAnswer, SpoolError
from ..files import Choice
from ..spool.moving import SERVED
from .book import Book

DAY = 86_400.0
EVERY = 3_600.0
AT_ONCE = 4
HELD = 20_000  # names: what is beyond that is found by a later listing
KEEP_WORKERS = 7 * DAY  # a worker that came once a week is still shown


class Sweeper:
    def __init__(self, files, log: Callable[[str], None]) -> None:
        self._files = files
        self._log = log
        self._last = float("-inf")
        self._served: deque[str] = deque()
        self._unlisted = True  # there may be served drops in tmp/ that are not in `_served`

    def put_aside(self, paths: Iterable[str]) -> None:
        for path in paths:
            if len(self._served) < HELD:
                self._served.append(path)
            else:
                self._unlisted = True

    def remove_some(self) -> bool:
        """Remove a few drops that have served, when there is nothing better to do; whether any."""
        if self._unlisted and not self._served:
            served = self._some(layout.TMP, SERVED, lambda name: name.startswith(SERVED))
            self._served.extend(map(layout.in_tmp, served))
            self._unlisted = len(served) == HELD
        for _ in range(min(AT_ONCE, len(self._served))):
            try:
                self._files.remove(self._served.popleft())
            except FileAnswer:
                continue
        return bool(self._served)

    def forget_old_runs(self, book: Book, lease: float) -> None:
        """Of each worker keep the latest run, and whatever may still live or has jobs."""
        by_worker: dict[str, list[tuple[float, str]]] = {}
        for run in self._some(layout.WORKERS, "runs", lambda name: bool(names.parse_run(name))):
            if parsed := names.parse_run(run):
                by_worker.setdefault(parsed[0], []).append((self._heard(run), run))
        oldest = self._files.now() - lease
        for runs in by_worker.values():
            for _, run in sorted(runs)[:-1]:
                if not book.by_run.get(run):
                    self._remove_older(layout.heartbeat(run), oldest, quietly=True)

    def _heard(self, run: str) -> float:
        try:
            return self._files.stat(layout.heartbeat(run)).mtime
        except FileAnswer:
            return 0.0

    def sweep(self, book: Book, now: float) -> None:
        """Once an hour: old files in tmp/, workers not heard for a week, output of ended jobs."""
        if now - self._last < EVERY:
            return
        self._last = now
        oldest = self._files.now() - DAY
        for name in self._some(layout.TMP, "others'", lambda name: not name.startswith("server")):
            self._remove_older(layout.in_tmp(name), oldest)
        for run in self._some(layout.WORKERS, "idle runs", lambda run: not book.by_run.get(run)):
            self._remove_older(layout.heartbeat(run), oldest + DAY - KEEP_WORKERS)
        for name in self._some(layout.RESULTS, "output", lambda name: _is_left_over(name, book)):
            self._remove_older(layout.in_box(layout.RESULTS, name), oldest)

    def _some(self, folder: str, told: str, wanted: Callable[[str], bool]) -> list[str]:
        """Names in a folder that others can fill; so many at most."""
        some = Choice(told, lambda names: list(islice(filter(wanted, names), HELD)))
        return self._files.names(folder, None, some)

    def _remove_older(self, path: str, oldest: float, quietly: bool = False) -> None:
        try:
            if self._files.stat(path).mtime < oldest:
                self._files.remove(path)
                if not quietly:
                    self._log(f"swept {path}")
        except FileAnswer:
            pass
        except SpoolError as error:
            self._log(f"{path}: cannot be swept: {error.message}")


def _is_left_over(name: str, book: Book) -> bool:
    claimed = names.parse_claim(name)
    return claimed is not None and claimed.kind == "out" and claimed.job not in book.entries

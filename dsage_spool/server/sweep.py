"""The server's tidying: what nobody will come back for. Never a job, never anything younger than a day."""

from __future__ import annotations

from collections import deque
from typing import Callable, Iterable

from .. import layout, names
from ..errors import FileAnswer, SpoolError
from ..spool.moving import SERVED
from .book import Book

DAY = 86_400.0
EVERY = 3_600.0
AT_ONCE = 4
KEEP_WORKERS = 7 * DAY  # a worker that came once a week is still shown

class Sweeper:
    def __init__(self, files, log: Callable[[str], None]) -> None:
        self._files = files
        self._log = log
        self._last = float("-inf")
        served = [name for name in files.names(layout.TMP) if name.startswith(SERVED)]
        self._served = deque(map(layout.in_tmp, served))

    def put_aside(self, paths: Iterable[str]) -> None:
        self._served.extend(paths)

    def remove_some(self) -> bool:
        """Remove a few drops that have served, when there is nothing better to do; whether any."""
        for _ in range(min(AT_ONCE, len(self._served))):
            try:
                self._files.remove(self._served.popleft())
            except FileAnswer:
                continue
        return bool(self._served)

    def forget_old_runs(self, book: Book, lease: float) -> None:
        """Of each worker keep the latest run, and whatever may still live or has jobs."""
        by_worker: dict[str, list[tuple[float, str]]] = {}
        for run in self._files.names(layout.WORKERS):
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
        for name in self._files.names(layout.TMP):
            if not name.startswith("server"):
                self._remove_older(layout.in_tmp(name), oldest)
        for run in self._files.names(layout.WORKERS):
            if not book.by_run.get(run):
                self._remove_older(layout.heartbeat(run), oldest + DAY - KEEP_WORKERS)
        for name in self._files.names(layout.RESULTS):
            claimed = names.parse_claim(name)
            if claimed and claimed.kind == "out" and claimed.job not in book.entries:
                self._remove_older(layout.in_box(layout.RESULTS, name), oldest)

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

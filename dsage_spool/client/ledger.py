"""What this person has submitted from this machine: a line a job, for `last` and for short names."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable

from .. import names
from ..text import clean


class Ledger:
    """A text file that only grows; losing it loses short names, nothing else.

    So a disk that refuses it is no error: what was submitted is submitted. It is kept in memory, and
    written with what comes next.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten = ""

    def add(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Note (job, title) pairs."""
        self._unwritten += "".join(f"{job} {clean(title, 80)}\n" for job, title in jobs)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as ledger:
                ledger.write(self._unwritten)
        except OSError:
            return
        self._unwritten = ""

    def jobs(self) -> list[str]:
        """All jobs noted, oldest first."""
        try:
            text = self._path.read_text("utf-8", errors="replace")
        except OSError:
            text = ""
        words = (line.split(" ", 1)[0] for line in (text + self._unwritten).splitlines())
        return [word for word in words if names.is_job(word)]

    def last(self) -> str:
        return next(reversed(self.jobs()), "")

    def matching(self, part: str) -> list[str]:
        return sorted({job for job in self.jobs() if part in job})

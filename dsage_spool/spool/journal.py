"""The journal: a line for every move, appended by the server, followed by everybody else by offset.

    2026-11-22T23:21:40Z 20261122T232140-4k2m7qx9ab settle running done 1 kiwi 0.2 s

A line tells where to look; the folders are the truth. Each start of the server and each new day
begins a new file, `<day>.<number>`, whose first line is `… - server - - - started`; the name of the
present one stands at the top of `queue`; a file that is left for a new day ends with `continued`. A follower who finds a new file looks at its jobs afresh:
lines that were lost with a power failure are made good that way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Sequence

from .. import layout
from ..clock import stamp
from ..errors import FileAnswer, Gone
from ..files import Files
from ..text import clean
from . import reading

_NAME = re.compile(r"([0-9]{8})\.([0-9]{1,6})")
_CHUNK = 256 << 10
UNTIL_FIRST = 0.2  # seconds between looks while no server has written a journal yet
CONTINUED = "continued in the next file"


@dataclass(frozen=True)
class Line:
    """One move: `verb` took `job` from one state to another."""

    job: str
    verb: str
    origin: str
    target: str
    attempt: str = "-"
    note: str = ""

    def text(self, moment: float) -> str:
        words = (stamp(moment), self.job, self.verb, self.origin, self.target, self.attempt)
        return f"{' '.join(words)} {clean(self.note, 120)}".rstrip()


def parse(text: str) -> Line | None:
    words = text.split(" ", 6)
    if len(words) < 6:
        return None
    return Line(*words[1:6], note=clean(words[6]) if len(words) == 7 else "")


def next_name(existing: Sequence[str], moment: float) -> str:
    """The name of a new journal file, later than all others in `existing`."""
    day = stamp(moment)[:10].replace("-", "")
    newest = max((key for key in map(_key, existing) if key), default=("", 0))
    return f"{day}.1" if day > newest[0] else f"{newest[0]}.{newest[1] + 1}"


def _key(name: str) -> tuple[str, int] | None:
    found = _NAME.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def names_in_order(names: Sequence[str]) -> list[str]:
    return sorted(filter(is_name, names), key=_key)


class Follower:
    """Reads what is new in the journal; one small request a poll.

    `poll` answers the new lines, and whether anything may have been missed (a new file began), in
    which case the caller looks at the folders. Every `recheck` seconds without a line it asks
    `queue` whether the server writes another file by now.
    """

    def __init__(self, files: Files, now: Callable[[], float], recheck: float = 5.0) -> None:
        self._files = files
        self._now = now
        self._recheck = recheck
        self._name = ""
        self._offset = 0
        self._checked = float("-inf")
        self._rest = b""

    def begin(self) -> None:
        """Start at the present end: what comes later will be seen."""
        self._switch(self._present_name(), at_end=True)

    def use(self, files: Files) -> None:
        """Go on over a new connection."""
        self._files = files

    def poll(self) -> tuple[list[Line], bool]:
        data = self._read()
        recheck = self._recheck if self._name else UNTIL_FIRST
        if not data and self._now() - self._checked >= recheck:
            return [], self._changed_file()
        lines = self._lines(data)
        if data:
            continued = any(line.note == CONTINUED for line in lines)
            self._checked = float("-inf") if continued else self._now()
        return lines, False

    def _read(self) -> bytes:
        if not self._name:
            return b""
        try:
            data = self._files.read_from(layout.journal(self._name), self._offset, _CHUNK)
        except Gone:
            return b""
        self._offset += len(data)
        return data

    def _lines(self, data: bytes) -> list[Line]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line for text in whole if (line := parse(text.decode("utf-8", "replace")))]

    def _changed_file(self) -> bool:
        self._checked = self._now()
        name = self._present_name()
        if name and (name != self._name or self._shrunk()):
            self._switch(name, at_end=False)
            return True
        return False

    def _shrunk(self) -> bool:
        try:
            return self._files.stat(layout.journal(self._name)).size < self._offset
        except FileAnswer:
            return True

    def _present_name(self) -> str:
        try:
            view = reading.read_queue(self._files)
        except FileAnswer:
            return ""
        return view.journal if view and is_name(view.journal) else ""

    def _switch(self, name: str, at_end: bool) -> None:
        self._name, self._offset, self._rest = name, 0, b""
        self._checked = self._now()
        if name and at_end:
            try:
                self._offset = self._files.stat(layout.journal(name)).size
            except Gone:
                self._offset = 0

"""A line that tells how far long work has come, drawn over itself; on a terminal only.

Elsewhere it is silent, or, where `plain_every` is given, writes a plain line at most every so many
seconds. It leaves nothing behind when it ends.
"""

from __future__ import annotations

import sys
import time
from typing import Callable, TextIO

from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from . import screen
from .words import number, safe

BAR = 24  # columns
ECHO = 4  # columns left free: a terminal echoes ^C, which must not begin a new line
REDRAW = 0.1  # seconds; more often nobody sees


class Progress:
    """`with Progress() as progress: … progress.update(done, total, "what is going on")`."""

    def __init__(
        self,
        file: TextIO | None = None,
        plain_every: float | None = None,
        color: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = sys.stderr if file is None else file
        self._plain_every = plain_every
        self._color = color
        self._clock = clock
        self._live: Live | None = None
        self._drawn = float("-inf")

    def __enter__(self) -> Progress:
        if screen.can_redraw(self._file):
            color = screen.may_colour(self._file, self._color)
            self._live = screen.live_on(self._file, color, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def update(self, done: int, total: int | None = None, text: str = "") -> None:
        """`total` of None or 0: nobody knows how much there is. The last step is always drawn."""
        pause = REDRAW if self._live else self._plain_every
        now = self._clock()
        if pause is None or (now - self._drawn < pause and done != total):
            return
        self._drawn = now
        if self._live:
            room = screen.width_of(self._file) - ECHO
            self._live.update(Constrain(_bar(done, total, text), room), refresh=True)
        else:
            line = Text("  ").join([_count(done, total), safe(text)])
            screen.print_view(line, self._file, self._color)


def _bar(done: int, total: int | None, text: str) -> Table:
    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    cells: list = [_count(done, total), safe(text, "dim")]
    if total:
        row.add_column(width=BAR)
        cells.insert(0, ProgressBar(total, min(done, total), width=BAR, finished_style="green"))
    row.add_column(no_wrap=True)
    row.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    row.add_row(*cells)
    return row


def _count(done: int, total: int | None) -> Text:
    return Text(f"{number(done)} of {number(total)}" if total else number(done))

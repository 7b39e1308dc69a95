"""Plain listings: a row a line, columns under short headings, no frames."""

from __future__ import annotations

from typing import Sequence, TextIO

from rich.table import Table

from .screen import is_terminal, print_view, width_of
from .words import safe

UNCUT = 4000  # columns; for a file or a pipe, where nothing should be cut to a screen
GAP = 2


def columns(*justify: str, grow: int | None = None) -> Table:
    """An empty grid of columns, `left` or `right` each; column `grow` takes the room left."""
    table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False, expand=grow is not None)
    for place, side in enumerate(justify):
        ratio = 1 if place == grow else None
        table.add_column(justify=side, no_wrap=True, overflow="ellipsis", ratio=ratio)
    return table


def print_rows(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    file: TextIO,
    color: bool | None = None,
) -> None:
    """Print a listing. Columns of numbers stand to the right; a terminal gets long lines cut."""
    texts = [[str(cell) for cell in row] for row in rows]
    sides = ["right" if _numbers(column) else "left" for column in zip(*texts)]
    table = columns(*(sides or ["left"] * len(headers)))
    table.add_row(*(safe(header, "bold") for header in headers))
    for row in texts:
        table.add_row(*map(safe, row))
    print_view(table, file, color, width_of(file) if is_terminal(file) else UNCUT)


def _numbers(cells: Sequence[str]) -> bool:
    return all(cell.replace(",", "").replace(".", "").isdigit() for cell in cells if cell)

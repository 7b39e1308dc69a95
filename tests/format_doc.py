"""Reads docs/format.md: its tables are data for tests."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "format.md"

# Columns of the matrix, and the files that each stands for.
COLUMNS = {
    "envelope, .sig": ("envelope", "envelope.sig"),
    "receipt, .sig": ("receipt", "receipt.sig"),
}


@cache
def text() -> str:
    return DOCUMENT.read_text()


def tables_under(heading: str) -> list[list[list[str]]]:
    """The tables of a section, each a list of rows, each a list of cells; headings begin with `#`."""
    body = re.split(rf"^#+ {heading}.*$", text(), maxsplit=1, flags=re.M)[1]
    body = re.split(r"^#", body, maxsplit=1, flags=re.M)[0]
    tables: list[list[list[str]]] = [[]]
    for line in body.split("\n"):
        if line.startswith("|"):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif tables[-1]:
            tables.append([])
    return [[table[0], *table[2:]] for table in tables if table]


@cache
def matrix() -> dict[str, dict[str, str]]:
    """Row, column: + always, - never, ? maybe."""
    [[head, *rows]] = tables_under("4 Files")
    return {row[0]: dict(zip(head[1:], row[1:])) for row in rows}


def files_of(column: str) -> tuple[str, ...]:
    return COLUMNS.get(column, (column,))


def broken_rules(row: str, inside: set[str]) -> list[str]:
    """What the matrix forbids about a folder with these files."""
    broken, known = [], set()
    for column, sign in matrix()[row].items():
        for name in files_of(column):
            pattern = re.escape(name).replace(r"\.N", r"\.N").replace("N", "[1-9][0-9]*")
            found = {file for file in inside if re.fullmatch(pattern, file)}
            known |= found
            if sign == "+" and not found:
                broken.append(f"{name} is missing")
            if sign == "-" and found:
                broken.append(f"{name} does not belong there")
    return broken + [f"{name} is in no column" for name in sorted(inside - known)]


@cache
def moves() -> dict[str, tuple[tuple[str, ...], str]]:
    [[_, *rows]] = tables_under("5 Moves")
    return {row[0]: (tuple(row[1].split(", ")), row[2]) for row in rows}


@cache
def names() -> dict[str, str]:
    """Kind of name: its example."""
    [[_, *rows]] = tables_under("3 Names")
    return {row[0]: row[3].strip("`") for row in rows}


@cache
def fields(record: str) -> dict[str, tuple[str, str | None]]:
    """Field: its type, and its default as text, None where it must be given."""
    [[_, *rows]] = tables_under(f"{record} ")
    found = {}
    for name, kind, _ in rows:
        word, bracket, default = kind.partition(" [")
        found[name] = (word, default.rstrip("]") if bracket else None)
    return found

"""The outcomes as a table for people, and as PROOF.json. Pure."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from dataclasses import asdict
from typing import Sequence

from .promises import PROMISES, Outcome

VERSION = 1


def as_text(outcomes: Sequence[Outcome]) -> str:
    """Claims by number, then a row for each harness: what, how many, violations, seconds."""
    lines = ["", *(f"{number}  {text}" for number, text in PROMISES.items()), ""]
    for one in outcomes:
        lines += _row(one)
    missing = sum(bool(one.not_run) for one in outcomes)
    broken = sum(len(one.violations) for one in outcomes)
    end = f"{broken} violations in {sum(one.seconds for one in outcomes):.0f} s"
    return "\n".join([*lines, "", end + (f"; {missing} rows could not be run here" if missing else "")])


def _row(one: Outcome) -> list[str]:
    promises = ",".join(map(str, one.promises))
    count = "not run" if one.not_run else f"{one.n:,} {one.unit}"
    verdict = "" if one.not_run else f"{len(one.violations)} violations"
    lines = [f"promise {promises}: {one.method}"]
    lines.append(f"    {count}, {verdict}, {one.seconds:.0f} s" if verdict else f"    {count}: {one.not_run}")
    if one.seeds and verdict:
        lines[-1] += f", seeds {one.seeds}"
    return lines + [f"    {note}" for note in one.notes] + [f"    !! {text}" for text in one.violations]


def rows_of(harness: str, outcomes: Sequence[Outcome], commit: str) -> list[dict]:
    """The outcomes of one harness as PROOF.json keeps them: of which code, and when."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return [{"harness": harness, "commit": commit, "date": today, **asdict(one)} for one in outcomes]


def merged(old: str, new: dict[str, list[dict]], order: Sequence[str]) -> str:
    """PROOF.json with the rows of the harnesses that have run in the place of their older ones."""
    rows = {name: [] for name in order}
    for row in json.loads(old)["rows"] if old else []:
        rows[row["harness"]].append(row)
    rows |= new
    found = {
        "version": VERSION,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "promises": {str(number): text for number, text in PROMISES.items()},
        "rows": [row for name in order for row in rows[name]],
    }
    return json.dumps(found, indent=1) + "\n"


def commit_now() -> str:
    """Of the code that is tried; with a + where it was changed since."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()


BEGIN, END = "<!-- proof: begin -->\n", "<!-- proof: end -->\n"


def as_markdown(text: str) -> str:
    """The table of the README, from the text of PROOF.json."""
    found = json.loads(text)
    lines = [
        f"The last runs, full level, Python {found['python']}, {found['system']}, two cores:",
        "",
        "| promise | tried by | n | violations | seconds | seeds | commit |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_markdown_row, found["rows"])]) + "\n"


def _markdown_row(row: dict) -> str:
    promises = ", ".join(map(str, row["promises"]))
    if row["not_run"]:
        return f"| {promises} | {row['method']} | not run | {row['not_run']} | | | {row['commit']} |"
    count, broken = f"{row['n']:,} {row['unit']}", len(row["violations"])
    cells = (promises, row["method"], count, broken, f"{row['seconds']:.0f}", row["seeds"], row["commit"])
    return f"| {' | '.join(map(str, cells))} |"


def inserted(readme: str, proof: str) -> str:
    """The README with the table of this PROOF.json between its marks."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + as_markdown(proof) + END + rest.split(END)[1]

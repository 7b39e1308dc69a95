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


def as_json(outcomes: Sequence[Outcome], level: str) -> str:
    found = {
        "version": VERSION,
        "level": level,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "promises": {str(number): text for number, text in PROMISES.items()},
        "rows": [asdict(one) for one in outcomes],
    }
    return json.dumps(found, indent=1) + "\n"


def _commit() -> str:
    """Of the code that was tried; with a + where it was changed since."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()

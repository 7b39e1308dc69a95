"""`python -m proof quick|full [HARNESS ...]`: run the harnesses and print the table. `full` with all of
them writes PROOF.json, and the table of the README; with some of them their rows there.

Exit status 1 if any promise was broken or any planted bug was missed. What this machine cannot run is
named with its reason and is no violation.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from pathlib import Path

from .promises import PROMISES, Outcome
from .table import as_text, commit_now, inserted, merged, rows_of

HARNESSES = ("simulated", "every_call", "power_loss", "partitions", "bulk")
TOP = Path(__file__).resolve().parent.parent.parent


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__)
    parser.add_argument("level", choices=("quick", "full"))
    parser.add_argument("harness", nargs="*", metavar="HARNESS", help=", ".join(HARNESSES))
    asked = parser.parse_args(arguments)
    if unknown := set(asked.harness) - set(HARNESSES):
        parser.error(f"no harness {', '.join(unknown)}; there are {', '.join(HARNESSES)}")
    commit = commit_now()
    found = {name: tried(name, asked.level) for name in asked.harness or HARNESSES}
    outcomes = [one for some in found.values() for one in some]
    print(as_text(outcomes))
    if asked.level == "full":
        write_down({name: rows_of(name, some, commit) for name, some in found.items()})
    return int(any(not one.holds for one in outcomes))


def write_down(rows: dict[str, list[dict]]) -> None:
    """PROOF.json, and its table in the README."""
    path = TOP / "PROOF.json"
    old = path.read_text() if path.exists() else ""
    proof = merged(old, rows, HARNESSES)
    path.write_text(proof)
    readme = TOP / "README.md"
    readme.write_text(inserted(readme.read_text(), proof))


def tried(name: str, level: str) -> list[Outcome]:
    """The rows of one harness; one that breaks down itself has proven nothing, and that is told."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        return importlib.import_module(f"proof.{name}").prove(level)
    except Exception:
        why = traceback.format_exc(limit=-3).strip().replace("\n", " | ")
        return [Outcome(tuple(PROMISES), name, 0, "", violations=(f"the harness broke down: {why}",))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

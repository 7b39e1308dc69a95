"""`python -m proof quick|full [HARNESS ...]`: run the harnesses, print the table, write PROOF.json.

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
from .table import as_json, as_text

HARNESSES = ("simulated", "every_call", "power_loss", "partitions", "bulk")
TOP = Path(__file__).resolve().parent.parent.parent


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__)
    parser.add_argument("level", choices=("quick", "full"))
    parser.add_argument("harness", nargs="*", metavar="HARNESS", help=", ".join(HARNESSES))
    asked = parser.parse_args(arguments)
    if unknown := set(asked.harness) - set(HARNESSES):
        parser.error(f"no harness {', '.join(unknown)}; there are {', '.join(HARNESSES)}")
    outcomes = [one for name in asked.harness or HARNESSES for one in tried(name, asked.level)]
    print(as_text(outcomes))
    if not asked.harness:
        (TOP / "PROOF.json").write_text(as_json(outcomes, asked.level))
    return int(any(not one.holds for one in outcomes))


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

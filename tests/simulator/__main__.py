"""Replay one seed and tell its story, or try many: `python -m simulator FIRST [LAST]`."""

from __future__ import annotations

import sys
import time

from .world import run


def main(arguments: list[str]) -> int:
    first = int(arguments[0])
    if len(arguments) == 1:
        found = run(first, told=True)
        print("\n".join(found.story))
        print(*found.violations, sep="\n")
        return bool(found.violations)
    began, bad, operations = time.perf_counter(), 0, 0
    for seed in range(first, int(arguments[1])):
        found = run(seed)
        operations += found.operations
        for text in found.violations[:1]:
            bad += 1
            print(f"seed {seed}: {text}")
    seconds = time.perf_counter() - began
    print(f"{bad} violations; {operations} operations in {seconds:.1f} s: {operations / seconds:.0f}/s")
    return bool(bad)


sys.exit(main(sys.argv[1:]))

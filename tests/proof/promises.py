"""What is promised, and what a harness says after it has tried to refute it. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field

PROMISES = {
    1: "no acknowledged job is lost",
    2: "one published result for each job, never replaced; at most N attempts",
    3: "nothing unsigned is executed or accepted",
    4: "no listening socket of ours",
    5: "when the faults stop everything ends, and no person is needed",
    6: "a flood of one person does not delay another's first job by more than one job",
    7: "the server's memory does not grow with what lies in a drop box",
}


@dataclass(frozen=True)
class Outcome:
    """One row of the table: `n` trials of a kind, and each violation told in one line."""

    promises: tuple[int, ...]  # keys of PROMISES
    method: str  # what was done to refute them, in a few words
    n: int  # trials that were carried out
    unit: str  # of what: "seeds", "kill points", "images", ...
    violations: tuple[str, ...] = ()
    seconds: float = 0.0  # wall time
    seeds: str = ""  # which, where chance took part: "0-19999"
    not_run: str = ""  # why this machine cannot try it; then n is 0
    notes: tuple[str, ...] = field(default=())  # figures worth telling

    @property
    def holds(self) -> bool:
        return not self.violations

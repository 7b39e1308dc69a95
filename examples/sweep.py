"""A sweep over parameters: for which a do a circle and a hyperbola meet in how many real points?

    python examples/sweep.py [SPOOL]

One job for each a computes the Groebner basis of x^2 + y^2 - a, x*y - 1, eliminates x, and counts
the real roots of what is left. Answers are printed as they come, in whatever order; the table at
the end is in order. The workers need sympy, under the same minor version of Python as this script.
"""

from __future__ import annotations

import sys

import dsage_spool
from dsage_spool import JobFailed, Options

PARAMETERS = range(8)


def meet(a: int) -> tuple[str, int]:
    """The eliminant in y, and how many real points it belongs to. Runs on the worker."""
    from sympy import count_roots, groebner
    from sympy.abc import x, y

    basis = groebner([x**2 + y**2 - a, x * y - 1], x, y, order="lex")
    eliminant = basis.exprs[-1]
    return str(eliminant), int(count_roots(eliminant))


def main(spool: str | None) -> int:
    with dsage_spool.connect(spool) as session:
        jobs = {}
        for a in PARAMETERS:
            # No answer after five minutes is an answer too: the job fails, the others go on.
            options = Options(title=f"meet {a}", batch="sweep", time_limit=300)
            jobs[session.submit_call(meet, (a,), options=options).id] = a
        found = {}
        for job in session.as_completed([session.job(name) for name in jobs], fetch=True):
            a = jobs[job.id]
            try:
                found[a] = job.result()
            except JobFailed as error:
                print(f"a = {a} failed: {error.message}", file=sys.stderr)
            else:
                print(f"{len(found)} of {len(jobs)}: a = {a}", file=sys.stderr)
    for a, (eliminant, points) in sorted(found.items()):
        print(f"a = {a}   {points} points   {eliminant} = 0")
    return 0 if len(found) == len(jobs) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))

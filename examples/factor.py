"""Factor a number by jobs through a spool, as Distributed SAGE did in 2007:

    python examples/factor.py [SPOOL [NUMBER]]

`dsage_spool.functions.factor` decides what to try next from what has come back; it knows no spool,
only something that submits and something that waits. `Jobs` is that, over a session. The command
`dsage-spool factor` does the same.
"""

from __future__ import annotations

import sys

import dsage_spool
from dsage_spool import Options, Session
from dsage_spool.functions.factor import factor


class CurveJob:
    """A job whose cancelling does not wait for the server's answer."""

    def __init__(self, session: Session, job: dsage_spool.Job) -> None:
        self.job, self.id, self.result = job, job.id, job.result
        self._session = session

    def cancel(self) -> bool:
        self._session.request([self.id], "cancel")
        return True


class Jobs:
    def __init__(self, session: Session) -> None:
        self._session = session

    def submit(self, function, *args, title: str) -> CurveJob:
        job = self._session.submit_call(function, args, options=Options(title=title))
        return CurveJob(self._session, job)

    def next_done(self, jobs, timeout: float) -> list[CurveJob]:
        ended = {job.id for job in self._session.next_done([job.job for job in jobs], timeout)}
        return [job for job in jobs if job.id in ended]


def main(spool: str | None, number: str) -> None:
    with dsage_spool.connect(spool) as session:
        found = factor(number, Jobs(session), observe=lambda event: print(event, file=sys.stderr))
    print(found.text())


if __name__ == "__main__":
    words = sys.argv[1:]
    main(words[0] if words else None, words[1] if len(words) > 1 else "11^150+1")

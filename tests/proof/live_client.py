"""A client far away: submits so many jobs, collects every result, and may be killed at any time.

    python -m proof.live_client PLACE FOLDER COUNT

Its ledger is FOLDER/acked (`job value attempts`, written once a job is acknowledged) and
FOLDER/collected (`job value`); started again it goes on from them. Ends when all is collected.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cloudpickle

import dsage_spool
from dsage_spool import Options
from dsage_spool.errors import JobFailed, SpoolError

BATCH = 10
MORTAL = 12  # each so manieth job has only three attempts
PATIENT = 60


def marked(folder: str, value: int) -> int:
    """The job: leave a mark for this execution, take a moment, return a square."""
    import os
    import time

    mark = f"{os.environ['DSAGE_SPOOL_JOB']} {os.environ['DSAGE_SPOOL_ATTEMPT']}\n"
    opened = os.open(f"{folder}/marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(opened, mark.encode())
    os.close(opened)
    time.sleep(0.05 + value % 7 / 10)
    return value * value


def rows(path: Path) -> list[list[str]]:
    """Whole lines of a ledger; the last may have been cut off by a kill."""
    text = path.read_text() if path.exists() else ""
    return [line.split() for line in text.split("\n")[:-1]]


def note(path: Path, *words: object) -> None:
    with open(path, "a") as ledger:
        ledger.write(" ".join(map(str, words)) + "\n")


def submit(session, folder: Path, count: int) -> None:
    while (done := len(rows(folder / "acked"))) < count:
        value = done + 1
        attempts = 3 if value % MORTAL == 0 else PATIENT
        job = session.submit_call(
            marked, (str(folder), value), options=Options(attempts=attempts)
        )
        note(folder / "acked", job.id, value, attempts)


def collect(session, folder: Path) -> None:
    known = {row[0] for row in rows(folder / "collected")}
    jobs = [session.job(row[0]) for row in rows(folder / "acked") if row[0] not in known]
    for job in session.as_completed(jobs, fetch=True):
        try:
            note(folder / "collected", job.id, job.result(60))
        except JobFailed:
            note(folder / "collected", job.id, "failed")


def main(place: str, folder: str, count: str) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    while True:
        try:
            with dsage_spool.connect(place) as session:
                submit(session, Path(folder), int(count))
                collect(session, Path(folder))
            return
        except SpoolError as error:
            print(error.message, file=sys.stderr, flush=True)
            time.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])

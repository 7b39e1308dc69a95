"""`result`, `wait`, `cancel`, `hold`, `release`: what becomes of jobs."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

from ..client.job import Job
from ..client.lookup import parse_duration
from ..client.session import Session
from ..errors import SpoolError, UsageError
from ..states import State
from ..text import clean, clean_lines
from .opening import job_named, open_session

JSON_VERSION = 1


def _timeout(arguments: Namespace) -> float | None:
    return parse_duration(arguments.timeout) if arguments.timeout else None


def result(arguments: Namespace) -> int:
    with open_session(arguments) as session:
        job = session.job(job_named(session, arguments.job))
        return tell_result(session, job, _timeout(arguments), arguments.json)


def tell_result(session: Session, job: Job, timeout: float | None, as_json: bool) -> int:
    """Wait, print the value (a command's: what it printed), and answer the exit status."""
    error = job.exception(timeout)
    if as_json:
        print(json.dumps(_fate(job, error, None if error else _shown(job.result()))))
    elif error is None:
        _print_value(job)
    else:
        print(f"dsage-spool: {error}", file=sys.stderr)
    return error.exit_status if error else 0


def _print_value(job: Job) -> None:
    if job.receipt().codec:
        value = job.result()
        if value is not None:
            print(clean_lines(_shown(value)))
        return
    stdout, _ = job.output()
    print(stdout, end="" if stdout.endswith("\n") or not stdout else "\n")


def _shown(value: Any) -> str:
    """repr, also of integers that Python refuses to print in full."""
    if isinstance(value, int) and not isinstance(value, bool) and hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    return value if isinstance(value, str) else repr(value)


def _fate(job: Job, error: SpoolError | None, value: str | None) -> dict[str, Any]:
    return {
        "version": JSON_VERSION,
        "job": job.id,
        "state": str(job.state),
        "verdict": job.verdict(),
        "value": value,
        "error": error.message if error else None,
    }


def wait(arguments: Namespace) -> int:
    with open_session(arguments) as session:
        jobs = [session.job(job_named(session, part)) for part in dict.fromkeys(arguments.jobs)]
        worst, fates = 0, []
        for job in _as_they_end(session, jobs, _timeout(arguments)):
            error = job.exception()
            worst = max(worst, error.exit_status if error else 0)
            fates.append(_fate(job, error, None))
            if not arguments.json:
                print(f"{job.id} {job.state} {clean(job.verdict())}")
        if arguments.json:
            print(json.dumps({"version": JSON_VERSION, "jobs": fates}))
        return worst


def _as_they_end(session: Session, jobs: list[Job], timeout: float | None):
    from ..view.progress import Progress

    with Progress() as progress:
        for count, job in enumerate(session.as_completed(jobs, timeout, fetch=True), 1):
            progress.update(count, len(jobs), "jobs have ended")
            yield job


def cancel(arguments: Namespace) -> int:
    with open_session(arguments) as session:
        wanted = [job_named(session, part) for part in arguments.jobs]
        ended = [job for job in wanted if session.job(job).done()]
        live = [session.job(job) for job in wanted if job not in ended]
        for job in ended:
            print(f"{job} has ended already: {session.job(job).state}", file=sys.stderr)
        session.request([job.id for job in live], "cancel")
        for job in session.as_completed(live, 10.0, fetch=True):
            print(f"{job.id} {job.state}")
        return 0 if all(job.state is State.CANCELLED for job in live) and not ended else 1


def hold(arguments: Namespace) -> int:
    return _ask(arguments, "hold")


def release(arguments: Namespace) -> int:
    return _ask(arguments, "release")


def _ask(arguments: Namespace, verb: str) -> int:
    with open_session(arguments) as session:
        jobs = [job_named(session, part) for part in arguments.jobs]
        for job in jobs:
            if session.job(job).done():
                raise UsageError(f"{job}: has ended already: {session.job(job).state}")
        session.request(jobs, verb)
        print(f"asked the server to {verb} {', '.join(jobs)}", file=sys.stderr)
        return 0

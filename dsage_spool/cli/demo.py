"""`demo` and `factor`: DSAGE's own showpiece, 11^150+1, by independent jobs through a spool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Callable

from .. import layout
from ..client.compose import Options
from ..client.job import Job
from ..client.session import Session
from ..config import load_config
from ..errors import SpoolError, Unreachable
from .opening import open_session

NUMBER = "11^150+1"
SLOTS = 2
READY = 30.0  # seconds in which a server and a worker must have started


class SpoolJobs:
    """A session as the distributed functions want it: titles, and cancelling without waiting."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def submit(self, function: Callable[..., Any], *args: Any, title: str) -> _Cancellable:
        job = self._session.submit_call(function, args, options=Options(title=title))
        return _Cancellable(self._session, job)

    def next_done(self, jobs: Sequence[_Cancellable], timeout: float) -> list[_Cancellable]:
        by_id = {job.id: job for job in jobs}
        ended = self._session.next_done([job.job for job in jobs], timeout)
        self._session.fetch(ended)
        return [by_id[job.id] for job in ended]


class _Cancellable:
    def __init__(self, session: Session, job: Job) -> None:
        self._session = session
        self.job = job
        self.id = job.id

    def cancel(self) -> bool:
        self._session.request([self.id], "cancel")
        return True

    def result(self) -> Any:
        return self.job.result()


def factor(arguments: Namespace) -> int:
    if arguments.local:
        from ..functions.factor import LocalSession

        return _factor(arguments.number, LocalSession(), 1, arguments)
    with open_session(arguments) as session:
        width = arguments.width or 2 * (os.cpu_count() or 1) + 2
        return _factor(arguments.number, SpoolJobs(session), width, arguments)


def _factor(number: str, jobs: Any, width: int, arguments: Namespace) -> int:
    from ..functions import factor as functions

    began = time.monotonic()
    with _Story(quiet=arguments.quiet or arguments.json) as story:
        found = functions.factor(number, jobs, width=width, observe=story.tell)
    found.check()
    if arguments.json:
        factors = {str(prime): power for prime, power in sorted(found.factors.items())}
        seconds = round(time.monotonic() - began, 3)
        print(json.dumps({"version": 1, "n": str(found.n), "factors": factors, "seconds": seconds}))
    else:
        print(found.text())
    if not (arguments.quiet or arguments.json):
        print(f"checked: the product is {number}, every factor is prime", file=sys.stderr)
    return 0


class _Story:
    """What the driver tells, for people: found factors as lines, the rest as one moving line."""

    def __init__(self, quiet: bool) -> None:
        from ..view.progress import Progress

        self._quiet = quiet
        self._progress = Progress(plain_every=None if quiet else 5.0)
        self._text = ""

    def __enter__(self) -> _Story:
        if not self._quiet:
            self._progress.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._quiet:
            self._progress.__exit__(*exc)

    def tell(self, event: Any) -> None:
        if self._quiet:
            return
        name = type(event).__name__
        if name == "Found":
            print(_found_line(event), file=sys.stderr)
        elif name == "Level":
            self._text = f"curves with B1 = {event.b1} on {len(str(event.number))} digits"
        elif name == "Progress":
            text = f"{event.curves} curves, {event.seconds:.0f} CPU s, {event.out} jobs out; {self._text}"
            self._progress.update(event.curves, None, text)
        else:
            print(f"  {event}", file=sys.stderr)


def _found_line(event: Any) -> str:
    text = str(event.number)
    shown = text if len(text) <= 64 else f"{text[:30]}…{text[-30:]}"
    kind = event.kind
    return f"  {kind}, {len(text)} digits: {shown}  [{event.origin}]"


def demo(arguments: Namespace) -> int:
    """Start what is missing, factor, tell where things lie, stop what was started."""
    from .making import init_spool

    config = load_config()
    place = os.path.abspath(os.path.expanduser(arguments.place))
    init_spool(place, config)
    _say(f"a spool in {place}, a server, and a worker with {SLOTS} slots on this machine")
    with _Parties(place) as parties:
        parties.start_all()
        _say(f"factoring {NUMBER} by independent jobs:")
        arguments = Namespace(
            number=NUMBER, local=False, width=2 * SLOTS + 2, quiet=False, json=False,
            spool=place, user=None, key=None, roster=None,
        )  # fmt: skip
        status = factor(arguments)
        done = len(os.listdir(os.path.join(place, "done"))) - 1
    _say(f"{done} job folders lie in {place}/done; look into one:")
    _say(f"  ls {arguments.spool}/done, then cat the envelope, receipt and verdict of a job")
    return status


def _say(text: str) -> None:
    print(text, file=sys.stderr)


class _Parties:
    """A server and a worker, started as a user would, and stopped again."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._started: list[subprocess.Popen] = []

    def __enter__(self) -> _Parties:
        return self

    def start_all(self) -> None:
        server = self._start("server", self._place, "--quiet")
        queue = os.path.join(self._place, layout.QUEUE)
        began = time.time()
        self._wait(server, "server", lambda: os.path.exists(queue) and os.path.getmtime(queue) >= began - 1)
        worker = self._start("worker", self._place, "--slots", str(SLOTS))
        folder = os.path.join(self._place, layout.WORKERS)
        self._wait(worker, "worker", lambda: bool(_runs(folder, began)))

    def _start(self, *words: str) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-m", "dsage_spool", *words])
        self._started.append(process)
        return process

    def _wait(self, process: subprocess.Popen, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY
        while not ready():
            if process.poll() is not None:
                raise SpoolError(f"the {name} ended at once", f"see {self._place}/log/server.log")
            if time.monotonic() > deadline:
                raise Unreachable(f"the {name} did not start within {READY:.0f} s")
            time.sleep(0.02)

    def __exit__(self, *exc: object) -> None:
        for process in reversed(self._started):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _runs(folder: str, since: float) -> list[str]:
    """Heartbeat files that were made or renewed since then."""
    paths = [os.path.join(folder, name) for name in os.listdir(folder) if name[0] != "."]
    return [path for path in paths if os.path.getmtime(path) >= since - 1]

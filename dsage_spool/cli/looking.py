"""`status`, `show`, `log`: what there is, one job's story, and what it printed."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace

from .. import layout
from ..client import snapshot
from ..errors import FileAnswer, UnknownJob
from ..spool import reading
from ..states import State
from ..text import clean_lines
from .opening import Looking, looking_at

CHUNK = 256 << 10


def status(arguments: Namespace) -> int:
    with looking_at(arguments) as spool:
        if arguments.json:
            print(json.dumps(_take(spool).to_json()))
            return 0
        from ..view import status as view

        if arguments.watch:
            view.watch(lambda: _take(spool), sys.stdout)
        else:
            view.print_status(_take(spool), sys.stdout)
    return 0


def _take(spool: Looking) -> snapshot.Snapshot:
    return snapshot.take(spool.files, spool.place, spool.local)


def show(arguments: Namespace) -> int:
    from ..client import story
    from ..client.connecting import own_roster
    from ..config import load_config
    from ..signing import Roster

    with looking_at(arguments) as spool:
        own = own_roster(load_config(), arguments.roster)
        trusted = Roster.parse(own.decode("utf-8", "replace")) if own else None
        told = story.collect(spool.files, spool.job_named(arguments.job), trusted, spool.place)
    if arguments.json:
        print(json.dumps(told.to_json()))
        return 0
    from ..view.story import print_story

    print_story(told, sys.stdout)
    return 0


def log(arguments: Namespace) -> int:
    with looking_at(arguments) as spool:
        job = spool.job_named(arguments.job)
        _Log(spool, job, layout.STDERR if arguments.stderr else layout.STDOUT).show(arguments.follow)
    return 0


class _Log:
    """What a job prints: from the live output while it runs, from its folder once it has ended."""

    def __init__(self, spool: Looking, job: str, part: str) -> None:
        self._files = spool.files
        self._job = job
        self._part = part
        self._shown = 0
        self._attempt = 0

    def show(self, follow: bool) -> None:
        while not self._one_look() and follow:
            time.sleep(0.5)

    def _one_look(self) -> bool:
        """Print what is new; whether the job has ended."""
        state = reading.state_of(self._files, self._job)
        if state is None:
            raise UnknownJob(f"{self._job}: no such job in this spool")
        if state is State.RUNNING:
            self._look_live()
            return False
        if state in (State.DONE, State.FAILED, State.CANCELLED, State.REJECTED):
            self._print_from(layout.in_job(state, self._job, self._part))
            return True
        return False

    def _look_live(self) -> None:
        inside = self._files.names(layout.job_folder(State.RUNNING, self._job))
        leases = [int(name[6:]) for name in inside if name.startswith("lease.") and name[6:].isdigit()]
        attempt = max(leases, default=0)
        if attempt != self._attempt:
            self._attempt, self._shown = attempt, 0
        if attempt and self._part == layout.STDOUT:
            self._print_from(layout.output(self._job, attempt))

    def _print_from(self, path: str) -> None:
        try:
            while data := self._files.read_from(path, self._shown, CHUNK):
                self._shown += len(data)
                _write(data)
        except FileAnswer:
            pass


def _write(data: bytes) -> None:
    """As it came into a file or a pipe; made harmless for a terminal."""
    if sys.stdout.isatty():
        sys.stdout.write(clean_lines(data.decode("utf-8", "replace")))
        sys.stdout.flush()
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

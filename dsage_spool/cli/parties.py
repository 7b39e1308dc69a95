"""`server`, `worker`, `pull`: put the parties together with real files, clocks and processes."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from .. import layout
from ..clock import SystemClock, stamp
from ..config import load_config
from ..errors import Busy, SpoolError, UsageError
from ..files import LocalFiles
from ..locks import SoleHolder
from ..places import Place
from ..text import clean_lines

if TYPE_CHECKING:
    from ..worker.outbox import Outbox


class Stop:
    """Set by SIGTERM, SIGINT and SIGHUP; a second signal ends the process at once."""

    def __init__(self, on_stop: Callable[[], None] = lambda: None) -> None:
        self._event = threading.Event()
        self._on_stop = on_stop
        for number in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", None)):
            if number is not None:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        if self._event.is_set():
            os._exit(128 + number)
        self._event.set()
        self._on_stop()

    def __call__(self) -> bool:
        return self._event.is_set()


def server(arguments: Namespace) -> int:
    from ..server.serve import Server
    from ..watch import Watch

    place = Place(arguments.place)
    if not place.local:
        raise UsageError(
            f"{arguments.place}: the server runs on the machine where the spool lies",
            "log in there with ssh, and start it there",
        )
    files = LocalFiles(place.path)
    log = _spool_log(files, arguments.quiet)
    events = load_config().watch()
    with _only_server(files, place.path):
        served = Server(files, SystemClock(), secrets.token_bytes, log)
        watched = [f"{place.path}/{box}" for box in (layout.INCOMING, layout.LOCKS, layout.RESULTS)]
        wake = Watch(watched, events)
        if wake.problem:
            log(wake.problem)
        stop = Stop(wake.wake)
        try:
            served.open()
            served.run(wake, stop)
            served.close()
        finally:
            wake.close()
    return 0


def _only_server(files: LocalFiles, path: str) -> SoleHolder:
    from ..spool import settings

    settings.load(files, path)  # not a spool: say so before a lock file is made in it
    return SoleHolder(
        f"{path}/{layout.SERVER_LOCK}", f"a server of {path}", "one server serves a spool"
    )


def _spool_log(files: LocalFiles, quiet: bool) -> Callable[[str], None]:
    """Plain lines, to log/server.log and to stderr. A disk that takes no line stops nobody."""

    def log(text: str) -> None:
        line = f"{stamp(time.time())} {clean_lines(text)}\n"
        try:
            files.append(f"{layout.LOG}/server.log", line.encode())
        except SpoolError:
            pass  # full: what the server is about to say is often just that
        if not quiet:
            sys.stderr.write(line)
            sys.stderr.flush()

    return log


def worker(arguments: Namespace) -> int:
    return _work(arguments, once=False)


def pull(arguments: Namespace) -> int:
    if arguments.jitter > 0:
        time.sleep(arguments.jitter * secrets.randbelow(1000) / 1000)
    try:
        return _work(arguments, once=True)
    except Busy:
        return 0  # the last pull has not finished: this one is not needed


def _work(arguments: Namespace, once: bool) -> int:
    from ..children import SlotProcesses
    from ..client.connecting import open_place, own_roster
    from ..worker.limits import Limits
    from ..worker.monitor import Monitor
    from ..worker.deliver import Deliveries
    from .making import worker_key

    config = load_config()
    name = config.worker(arguments.name)
    clock = SystemClock()
    signer = worker_key(config, arguments.key)
    place = open_place(arguments.place, config)
    slots = arguments.slots or os.cpu_count() or 1
    home = _worker_home(config, place, name, arguments.place)
    stop = Stop()
    with SoleHolder(home / "lock", f"worker {name}", "give another one its own --name"):
        facts = _facts(name, slots, arguments.tag)
        children = SlotProcesses(slots, home / "scratch", nice=arguments.nice)
        until = clock.boottime() + 60 * arguments.max_minutes if arguments.max_minutes else None
        monitor = Monitor(
            place.connect,
            clock,
            secrets.token_bytes,
            children,
            Deliveries(_outbox(home / "outbox"), signer),
            facts,
            Limits(arguments.max_jobs, until, once),
            _stderr_log,
            roster=own_roster(config, arguments.roster),
            longest_wait=0.1 if place.local else 2.0,
            place=arguments.place,
        )
        try:
            monitor.run(stop)
        finally:
            children.close()
            place.close()
    return 0


def _outbox(folder: Path) -> Outbox:
    from ..worker.outbox import Outbox

    folder.mkdir(parents=True, exist_ok=True)
    return Outbox(LocalFiles(folder), _stderr_log)


def _worker_home(config, place: Place, name: str, spec: str):
    """This worker's folder on its own machine: lock, outbox, scratch.

    Named after the spool's id where that can be seen without the network, else after its address,
    so that finished results are found again whether or not the host can be reached.
    """
    import hashlib

    text = f"path {place.path}" if place.local else f"address {spec}"
    return config.state_folder / "workers" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _facts(name: str, slots: int, tags: list[str]):
    """What this worker tells about itself and can offer."""
    import platform
    import socket

    from .. import __version__, names
    from ..needs import offers
    from ..records import Worker

    for tag in tags:
        if not names.is_token(tag):
            raise UsageError(f"--tag {tag!r}: not a plain word", "letters, digits, . + - _")
    memory = _machine_memory()
    return Worker(
        worker=name,
        run="",
        host=socket.gethostname(),
        pid=os.getpid(),
        slots=slots,
        started=round(time.time(), 3),
        version=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        memory=memory,
        offers=(*offers(), *tags, *([f"memory={memory}"] if memory else [])),
    )


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _stderr_log(text: str) -> None:
    sys.stderr.write(f"{stamp(time.time())} {clean_lines(text)}\n")
    sys.stderr.flush()

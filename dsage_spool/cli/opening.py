"""From the options of a command to an open session, or to a spool that is only looked at."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Iterator

from ..client.connecting import connect, ledger_of, open_place
from ..client.ledger import Ledger
from ..client.lookup import find_job
from ..client.session import Session
from ..config import load_config
from ..files import Files, LocalFiles
from ..spool import settings


def open_session(arguments: Namespace) -> Session:
    """The session that a client command asks for; it asks for a passphrase if there is a terminal."""
    return connect(
        arguments.spool,
        user=arguments.user,
        key=arguments.key,
        roster=arguments.roster,
        passphrase=asker(),
        config=load_config(),
    )


def asker() -> Callable[[], str] | None:
    """How to ask for a passphrase; None where nobody sits at a terminal."""
    return _ask if sys.stdin.isatty() else None


def _ask() -> str:
    return getpass.getpass("passphrase of your key: ", stream=sys.stderr)


def job_named(session: Session, part: str) -> str:
    """The one job that a person means."""
    return find_job(part, session.files, session.ledger, isinstance(session.files, LocalFiles))


@dataclass(frozen=True)
class Looking:
    """A spool that is only read: no key is needed."""

    files: Files
    place: str
    local: bool
    ledger: Ledger

    def job_named(self, part: str) -> str:
        return find_job(part, self.files, self.ledger, self.local)


@contextmanager
def looking_at(arguments: Namespace) -> Iterator[Looking]:
    config = load_config()
    spec = config.spool(arguments.spool)
    place = open_place(spec, config)
    try:
        files = place.connect()
        found = settings.load(files, spec)
        yield Looking(files, spec, place.local, ledger_of(config, found.id))
        files.close()
    finally:
        place.close()

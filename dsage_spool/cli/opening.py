"""From the options of a command to an open session."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace

from ..client.connecting import connect
from ..client.lookup import find_job
from ..client.session import Session
from ..config import load_config
from ..files import LocalFiles


def open_session(arguments: Namespace) -> Session:
    """The session that a client command asks for; it asks for a passphrase if there is a terminal."""
    return connect(
        arguments.spool,
        user=arguments.user,
        key=arguments.key,
        roster=arguments.roster,
        passphrase=_ask if sys.stdin.isatty() else None,
        config=load_config(),
    )


def _ask() -> str:
    return getpass.getpass("passphrase of your key: ", stream=sys.stderr)


def job_named(session: Session, part: str) -> str:
    """The one job that a person means."""
    return find_job(part, session.files, session.ledger, isinstance(session.files, LocalFiles))

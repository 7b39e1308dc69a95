"""Open a session on a spool, with the settings of this person on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from .. import keys
from ..config import Config, load_config
from ..errors import UsageError
from ..places import Place
from ..spool import settings
from .ledger import Ledger
from .session import Session

LOCAL_WAIT = 0.05  # seconds between polls of a local spool, at the longest
REMOTE_WAIT = 1.0


def connect(
    spool: str | None = None,
    *,
    user: str | None = None,
    key: str | None = None,
    roster: str | None = None,
    passphrase: Callable[[], str] | None = None,
    config: Config | None = None,
) -> Session:
    """A session on `spool`, a path or `user@host:path`; what is left out comes from the settings.

    `user` is your name in the roster, `key` the private key that signs, `roster` a roster file of
    your own to trust instead of the spool's. Raises UsageError, Refused, Unreachable.
    """
    config = config or load_config()
    spec = config.spool(spool)
    place = open_place(spec, config)
    files = place.connect()
    try:
        return _session(files, spec, place, config, user, key, roster, passphrase)
    except BaseException:
        files.close()
        place.close()
        raise


def _session(files, spec, place, config, user, key, roster, passphrase) -> Session:
    found = settings.load(files, spec)
    signer = keys.find_signer(config.get("key", key) or None, config.home, config.environ, passphrase)
    return Session(
        files,
        signer,
        config.user(user),
        ledger=ledger_of(config, found.id),
        roster=own_roster(config, roster),
        longest_wait=LOCAL_WAIT if place.local else REMOTE_WAIT,
        place=spec,
        on_close=place.close,
    )


def open_place(spec: str, config: Config) -> Place:
    """Where a spool is, with this person's way of using SSH."""
    ssh_config = config.get("ssh_config")
    return Place(spec, **({"file": ssh_config} if ssh_config else {}))


def ledger_of(config: Config, spool_id: str) -> Ledger:
    return Ledger(config.state_folder / spool_id / "submitted")


def own_roster(config: Config, flag: str | None) -> bytes | None:
    """The roster file that this person trusts instead of the spool's, if any."""
    path = config.get("roster", flag)
    if not path:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "name a readable roster file") from None

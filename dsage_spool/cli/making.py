"""`init` and `key`: a spool, and the keys that are used with it."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from pathlib import Path

from .. import keys, layout
from ..clock import stamp
from ..config import Config, load_config
from ..errors import UsageError
from ..address import parse_address
from ..files import LocalFiles
from ..signing import JOB_NAMESPACE, RESULT_NAMESPACE, Roster, Signer, line_for
from ..spool import making
from ..spool.settings import Settings


def init(arguments: Namespace) -> int:
    config = load_config()
    settings = init_spool(
        arguments.place,
        config,
        user=arguments.user,
        key=arguments.key,
        worker=arguments.worker,
        lease=arguments.lease,
    )
    place = os.path.abspath(os.path.expanduser(arguments.place))
    print(f"spool {settings.id} is ready in {place}", file=sys.stderr)
    print(f"next: dsage-spool server {arguments.place} & dsage-spool worker {arguments.place} &", file=sys.stderr)
    print(f"      dsage-spool submit --spool {arguments.place} --wait '2+2'", file=sys.stderr)
    return 0


def init_spool(
    place: str,
    config: Config,
    *,
    user: str | None = None,
    key: str | None = None,
    worker: str | None = None,
    lease: float | None = None,
) -> Settings:
    """Make a spool, or what is missing of one, and enter this person and this machine's worker."""
    if parse_address(place) is not None:
        raise UsageError(
            f"{place}: a spool is made on the machine where it shall lie",
            "log in there with ssh, and run `dsage-spool init` there",
        )
    root = Path(os.path.expanduser(place))
    root.mkdir(parents=True, exist_ok=True)
    files = LocalFiles(root)
    given = {"lease": lease} if lease else {}
    settings = making.make_spool(files, os.urandom, stamp(time.time()), **given)
    enter(files, config.user(user), person_key(config, key), JOB_NAMESPACE)
    enter(files, config.worker(worker), worker_key(config), RESULT_NAMESPACE)
    return settings


def person_key(config: Config, flag: str | None = None) -> Signer:
    """The key a person has, or a new one where there is none at all."""
    try:
        return keys.find_signer(config.get("key", flag) or None, config.home, config.environ)
    except UsageError:
        if config.get("key", flag):
            raise
        return keys.make_key(keys.own_key_path(config.home, config.environ), config.user())


def worker_key_path(config: Config, flag: str | None = None) -> Path:
    given = config.get("worker_key", flag)
    return Path(given).expanduser() if given else config.config_folder / "worker_ed25519"


def worker_key(config: Config, flag: str | None = None) -> Signer:
    """This machine's key for results; made at its first use unless one is named."""
    path = worker_key_path(config, flag)
    if config.get("worker_key", flag):
        return keys.load_signer(path)
    return keys.make_key(path, f"worker {config.worker()}")


def enter(files: LocalFiles, name: str, signer: Signer, namespace: str) -> bool:
    """Add a roster line unless the key stands there under that name; whether it was added."""
    text = files.read(layout.ROSTER, 16 << 20).decode("utf-8", "replace")
    if name in Roster.parse(text).principals(namespace, signer.public):
        return False
    line = line_for(name, signer.public, namespace)
    start = "" if not text or text.endswith("\n") else "\n"
    files.append(layout.ROSTER, f"{start}{line}\n".encode())
    files.sync([layout.ROSTER])
    return True


def key(arguments: Namespace) -> int:
    """Print the line that the owner of a spool adds to its roster."""
    config = load_config()
    if arguments.worker is None:
        signer, name, namespace = person_key(config, arguments.key), config.user(arguments.user), JOB_NAMESPACE
    else:
        signer = worker_key(config, arguments.key)
        name, namespace = config.worker(arguments.worker or None), RESULT_NAMESPACE
    print(line_for(name, signer.public, namespace))
    print("add this line to the file `roster` of the spool", file=sys.stderr)
    return 0

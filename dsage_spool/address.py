"""Tell the address of a spool on another machine from a path on this one. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from .errors import UsageError

_SCP_LIKE = re.compile(r"(?:([^@/\\:\s]+)@)?(\[[0-9A-Fa-f:.%\w]+\]|[\w.-]+):(.*)", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class Address:
    """A folder on a host. `host` may be an alias of the user's ssh config.

    `path` "" is the login folder; `user` "" and `port` 0 mean what that config says.
    """

    host: str
    path: str = ""
    user: str = ""
    port: int = 0

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}{f':{self.port}' if self.port else ''}"


def parse_address(text: str) -> Address | None:
    """`user@host:path`, `host:path`, `ssh://user@host:port/path`; None for a path on this machine.

    A `/` before the first `:` makes it a path, as for scp; so does a Windows drive.
    """
    if text.lower().startswith("ssh://"):
        return _from_url(text)
    found = _SCP_LIKE.fullmatch(text)
    if not found or _DRIVE.match(text):
        return None
    user, host, path = found.groups()
    return _checked(Address(host.strip("[]"), path, user or ""), text)


def _from_url(text: str) -> Address:
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port or 0
    except ValueError as error:
        raise UsageError(f"address {text!r}: {error}", "write ssh://user@host:port/path") from error
    path = unquote(url.path)
    if path.startswith("/~"):
        path = path[1:]
    user = unquote(url.username or "")
    return _checked(Address(host, path if path != "/" else "", user, port), text)


def _checked(address: Address, text: str) -> Address:
    # ssh would take a leading dash for an option (CVE-2017-1000117 and its kin).
    if not address.host or address.host[0] == "-" or address.user[:1] == "-":
        raise UsageError(f"address {text!r}: names no host", "write user@host:path")
    return address

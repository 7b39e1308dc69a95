"""The host keys that the user trusts: OpenSSH's known_hosts files, read leniently.

After sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": patterns, hashed names, `[host]:port`, `@revoked`,
`@cert-authority`. A line that cannot be read is passed over, as ssh does. `check` raises Refused.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from typing import Iterable, NamedTuple

from .errors import Refused

KNOWN, UNKNOWN, CHANGED = "known", "unknown", "changed"
REVOKED, BY_AUTHORITY = "revoked", "authority"


class HostKey(NamedTuple):
    marker: str  # "", "@revoked" or "@cert-authority"
    hosts: str
    kind: str
    blob: bytes


def host_name(host: str, port: int, alias: str = "") -> str:
    """The name under which a host's key is filed."""
    if alias:
        return alias.lower()
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def load(paths: Iterable[str]) -> list[HostKey]:
    """The keys of all files that can be read."""
    keys = []
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as lines:
                keys += [key for key in map(_read_line, lines) if key]
        except OSError:
            continue  # a user without /etc/ssh/ssh_known_hosts is no error
    return keys


def _read_line(line: str) -> HostKey | None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    try:
        hosts, kind, blob = words[:3]
        return HostKey(marker, hosts, kind, base64.b64decode(blob, validate=True))
    except (ValueError, binascii.Error):
        return None


def of_host(keys: Iterable[HostKey], name: str) -> list[HostKey]:
    """Those whose patterns match this name."""
    return [key for key in keys if _matches(key.hosts, name)]


def judge(keys: Iterable[HostKey], kind: str, blob: bytes) -> str:
    """What a host's keys on file say about the key it showed."""
    keys = list(keys)
    if any(key.marker == "@revoked" and key.blob == blob for key in keys):
        return REVOKED
    plain = [key for key in keys if not key.marker]
    if any(key.kind == kind and key.blob == blob for key in plain):
        return KNOWN
    if plain:
        return CHANGED
    return BY_AUTHORITY if any(key.marker == "@cert-authority" for key in keys) else UNKNOWN


def check(
    keys: Iterable[HostKey], kind: str, blob: bytes, *, host: str, name: str, by_hand: str
) -> None:
    """Refused, with a remedy, unless the key shown is known.

    `host` is for the message, `name` its name on file, `by_hand` the command that files its key.
    """
    verdict = judge(keys, kind, blob)
    key = f"{kind} {fingerprint(blob)}"
    ask = f"ask the owner of the host whether its key is {key}"
    if verdict == CHANGED:
        raise Refused(
            f"{host}: THE HOST KEY HAS CHANGED, somebody may be listening in; it shows {key}",
            f"{ask}; only then: ssh-keygen -R '{name}', and once by hand: {by_hand}",
        )
    if verdict == REVOKED:
        raise Refused(f"{host}: the host key is revoked: {key}", "ask the owner of the host")
    if verdict == BY_AUTHORITY:
        hint = f"{ask}; certificates of hosts do not count here: add its plain key to known_hosts"
        raise Refused(f"{host}: the host key is known only by an authority: {key}", hint)
    if verdict == UNKNOWN:
        raise Refused(f"{host}: unknown host key {key}", f"{ask}; then run once by hand: {by_hand}")


def fingerprint(blob: bytes) -> str:
    """As `ssh-keygen -l` prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return "SHA256:" + digest.rstrip("=")


def _matches(hosts: str, name: str) -> bool:
    if hosts.startswith("|1|"):
        return _matches_hash(hosts, name)
    found = False
    for pattern in hosts.lower().split(","):
        negated = pattern.startswith("!")
        if _matches_pattern(pattern.lstrip("!"), name):
            if negated:
                return False
            found = True
    return found


def _matches_pattern(pattern: str, name: str) -> bool:
    # Only * and ? are wild; the brackets of `[host]:port` are not.
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _matches_hash(hosts: str, name: str) -> bool:
    try:
        _, _, salt, digest = hosts.split("|")
        wanted = base64.b64decode(digest, validate=True)
        seen = hmac.new(base64.b64decode(salt, validate=True), name.encode(), hashlib.sha1).digest()
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(wanted, seen)

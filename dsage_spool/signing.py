"""SSH signatures (SSHSIG) and the roster that says whose signatures count.

Pure: text and bytes in, text and bytes out; the caller reads files and knows the time. What is
signed here `ssh-keygen -Y verify` accepts, and the other way round; a roster is OpenSSH's
allowed_signers.

Fails with `BadSignature` (these bytes are not signed by whom they should be). A roster line that is
not understood in full trusts nobody and is told in `Roster.problems`.

Not supported: certificates (a `cert-authority` line is kept and matches nobody) and binary
revocation lists. Validity dates without `Z` are in this machine's time zone, as in OpenSSH.
Sources: OpenSSH PROTOCOL.sshsig; ALLOWED SIGNERS and PATTERNS in ssh-keygen(1) and ssh_config(5).
"""

from __future__ import annotations

import base64
import hashlib
import re
import textwrap
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property

from dsage_spool.errors import BadFormat, BadSignature, Refused, UsageError
from dsage_spool.sshkey import (
    KINDS,
    PrivateKeySigner,
    PublicKey,
    Signer,
    WireReader,
    fingerprint_of,
    shown,
    strict_base64,
    wire_string,
)

__all__ = [
    "JOB_NAMESPACE",
    "RESULT_NAMESPACE",
    "Entry",
    "PrivateKeySigner",
    "PublicKey",
    "Roster",
    "Signature",
    "Signer",
    "line_for",
    "parse_signature",
    "sign",
]

JOB_NAMESPACE = "job@dsage-spool"
RESULT_NAMESPACE = "result@dsage-spool"

MAX_SIGNATURE_TEXT = 16 * 1024

_MAGIC = b"SSHSIG"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_BLANK = " \t\r"
_BYTES = ("utf-8", "surrogateescape")


def sign(signer: Signer, message: bytes, namespace: str) -> str:
    """The armored signature, byte for byte of the form `ssh-keygen -Y sign` writes (sha512)."""
    if not namespace:
        raise UsageError("signature: the namespace is empty")
    body = signer.sign_blob(_signed_bytes(message, namespace, "sha512"))
    blob = _MAGIC + (1).to_bytes(4, "big")
    for part in (signer.public.blob, namespace.encode(), b"", b"sha512", body):
        blob += wire_string(part)
    lines = textwrap.wrap(base64.b64encode(blob).decode(), 70)
    return "\n".join([_BEGIN, *lines, _END, ""])


def _signed_bytes(message: bytes, namespace: str, algorithm: str) -> bytes:
    """OpenSSH PROTOCOL.sshsig, section 3: what the key really signs."""
    digest = hashlib.new(algorithm, message).digest()
    parts = (namespace.encode(), b"", algorithm.encode(), digest)
    return _MAGIC + b"".join(map(wire_string, parts))


@dataclass(frozen=True)
class Signature:
    """A parsed signature: what it says of itself, with nothing of it checked yet."""

    key_blob: bytes
    namespace: str
    hash_name: str
    blob: bytes

    @cached_property
    def public_key(self) -> PublicKey:
        return PublicKey(self.key_blob)

    def check(self, public_key: PublicKey, message: bytes) -> None:
        """BadSignature unless `public_key` signed `message` in this signature's namespace."""
        public_key.verify(self.blob, _signed_bytes(message, self.namespace, self.hash_name))


@dataclass(frozen=True)
class Unproven:
    """A signature by a key that is trusted, if it is good."""

    key: PublicKey
    signature: Signature

    def prove(self, message: bytes) -> PublicKey:
        """The key, if it really signed `message`; BadSignature otherwise."""
        self.signature.check(self.key, message)
        return self.key


def parse_signature(text: str) -> Signature:
    """OpenSSH PROTOCOL.sshsig, sections 1 and 2; BadSignature for all that is not one signature."""
    if len(text) > MAX_SIGNATURE_TEXT:
        raise BadSignature(f"signature: longer than {MAX_SIGNATURE_TEXT} characters")
    lines = [line.rstrip(_BLANK) for line in text.removesuffix("\n").split("\n")]
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise BadSignature("signature: not one SSH SIGNATURE block")
    try:
        return _read_signature(WireReader(strict_base64("".join(lines[1:-1]))))
    except ValueError as error:
        raise BadSignature(f"signature: cannot be read: {error}") from None


def _read_signature(reader: WireReader) -> Signature:
    if reader.take(len(_MAGIC)) != _MAGIC or reader.number() != 1:
        raise ValueError("it is not an SSHSIG of version 1")
    key_blob, namespace = reader.string(), reader.string().decode()
    reserved, hash_name, blob = reader.string(), reader.word(), reader.string()
    reader.end()
    if not namespace or reserved:
        raise ValueError("its namespace is empty, or its reserved field is not")
    if hash_name not in ("sha256", "sha512"):
        raise ValueError(f"hash {shown(hash_name)} is not supported")
    return Signature(key_blob, namespace, hash_name, blob)


# --- the roster ---

_WORD = re.compile(r'(?:"([^"]*)"|([^\s"]+))[ \t]+')
_OPTION = re.compile(r'([A-Za-z-]+)(?:="([^"\\]*)")?(,|[ \t]+)')
_MOMENT = re.compile(
    "([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})([0-9]{2})([0-9]{2})?)?(Z|UTC)?", re.IGNORECASE
)
_OPTIONS = ("cert-authority", "namespaces", "valid-after", "valid-before")


@dataclass(frozen=True)
class Entry:
    """One roster line. Times are seconds since 1970, None for no limit."""

    line: int
    principals: str
    key: PublicKey
    namespaces: str | None = None
    valid_after: int | None = None
    valid_before: int | None = None
    authority: bool = False
    comment: str = ""

    def names(self, principal: str) -> bool:
        return not self.authority and listed(principal, self.principals)

    def allows(self, namespace: str) -> bool:
        return self.namespaces is None or listed(namespace, self.namespaces)

    def plain_names(self) -> list[str]:
        """The principals it names outright: no patterns, and none that it takes back."""
        words = self.principals.split(",")
        return [word for word in words if word and not set(word) & set("*?!") and self.names(word)]


class Roster:
    """Who may sign what: OpenSSH allowed_signers. Keys are found by their blob, in one step."""

    def __init__(self, entries: list[Entry], problems: list[str]) -> None:
        self.entries, self.problems = tuple(entries), problems
        self._by_blob: dict[bytes, list[Entry]] = {}
        self._known: dict[tuple[str, str], bool] = {}
        for entry in entries:
            self._by_blob.setdefault(entry.key.blob, []).append(entry)

    @classmethod
    def parse(cls, text: str) -> Roster:
        """Never fails: a line that is not understood is left out and told in `problems`."""
        entries, problems = [], []
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.strip(_BLANK)
            if not line or line.startswith("#"):
                continue
            try:
                entries.append(_read_entry(number, line))
            except (ValueError, BadFormat, Refused) as error:
                problems.append(f"line {number}: {str(error).splitlines()[0]}")
                continue
            if entries[-1].authority:
                problems.append(f"line {number}: cert-authority: certificates match nobody here")
        return cls(entries, problems)

    def verify(
        self, message: bytes, signature_text: str, principal: str, namespace: str, now: float
    ) -> PublicKey:
        """The key with which `principal` signed `message`; BadSignature says which check failed.

        `now` is in seconds since 1970. The cheap checks come first: a key nobody knows costs no
        arithmetic.
        """
        return self.unproven(signature_text, principal, namespace, now).prove(message)

    def unproven(
        self, signature_text: str, principal: str, namespace: str, now: float
    ) -> Unproven:
        """All that can be said before the arithmetic: `principal` may sign with that key now."""
        signature = parse_signature(signature_text)
        if signature.namespace != namespace:
            raise BadSignature(
                f"signature: made for namespace {shown(signature.namespace)}, not {namespace}",
                hint=f"sign it anew with -n {namespace}",
            )
        entry = self._entry_for(signature.key_blob, principal, namespace, int(now))
        return Unproven(entry.key, signature)

    def _entry_for(self, blob: bytes, principal: str, namespace: str, now: int) -> Entry:
        key, who = f"key {fingerprint_of(blob)}", shown(principal)
        known = [entry for entry in self._by_blob.get(blob, ()) if not entry.authority]
        named = [entry for entry in known if entry.names(principal)]
        allowed = [entry for entry in named if entry.allows(namespace)]
        hint = "the file `roster` of the spool lists who may sign what"
        if not known:
            raise BadSignature(f"{key}: not in the roster", hint)
        if not named:
            raise BadSignature(f"{key}: in the roster, but not for {who}", hint)
        if not allowed:
            raise BadSignature(f"{key}: not in the roster for {who} in namespace {namespace}", hint)
        for entry in allowed:
            if not _out_of_time(entry, now):
                return entry
        raise BadSignature(f"{key}: for {who} {_out_of_time(allowed[-1], now)}", hint)

    def principals(self, namespace: str, public_key: PublicKey) -> list[str]:
        """Names the roster gives this key in `namespace`, in its order; patterns are left out."""
        entries = self._by_blob.get(public_key.blob, ())
        return _names(entry for entry in entries if entry.allows(namespace))

    def names(self, namespace: str) -> list[str]:
        """All names that may sign in `namespace`, in the roster's order; patterns are left out."""
        return _names(entry for entry in self.entries if entry.allows(namespace))

    def has(self, principal: str, namespace: str) -> bool:
        """Whether any line lets `principal` sign in `namespace`, patterns included."""
        known = self._known.get((principal, namespace))
        if known is None:
            known = any(e.names(principal) and e.allows(namespace) for e in self.entries)
            self._known[principal, namespace] = known
        return known

    def people(self) -> list[str]:
        return self.names(JOB_NAMESPACE)

    def workers(self) -> list[str]:
        return self.names(RESULT_NAMESPACE)


def _names(entries: Iterable[Entry]) -> list[str]:
    return list(dict.fromkeys(name for entry in entries for name in entry.plain_names()))


def _out_of_time(entry: Entry, now: int) -> str:
    """Why the entry does not hold at `now`; empty when it does."""
    if entry.valid_after is not None and now < entry.valid_after:
        return f"not yet valid, only from {_date(entry.valid_after)}"
    if entry.valid_before is not None and now > entry.valid_before:
        return f"expired, since {_date(entry.valid_before)}"
    return ""


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def _read_entry(number: int, line: str) -> Entry:
    word = _WORD.match(line)
    if not word or not (principals := word[1] or word[2]):
        raise ValueError("not of the form: alice ssh-ed25519 AAAA...")
    options, at = _read_options(line, word.end())
    after = _moment(options["valid-after"]) if "valid-after" in options else None
    before = _moment(options["valid-before"]) if "valid-before" in options else None
    if after is not None and before is not None and before <= after:
        raise ValueError("valid-before is not after valid-after")
    return Entry(
        line=number,
        principals=principals,
        key=PublicKey.parse(line[at:]),
        namespaces=options.get("namespaces"),
        valid_after=after,
        valid_before=before,
        authority="cert-authority" in options,
        comment=" ".join(line[at:].split()[2:]),
    )


def _read_options(line: str, at: int) -> tuple[dict[str, str], int]:
    """The options from `at` on, and where the key behind them begins."""
    options: dict[str, str] = {}
    more = line[at:].split(None, 1)[0] not in KINDS
    while more:
        found = _OPTION.match(line, at)
        if not found:
            raise ValueError("its options or its kind of key cannot be read")
        name, value = found[1].lower(), found[2]
        if name not in _OPTIONS or (value is None) != (name == "cert-authority"):
            raise ValueError(f"option {shown(found[1])} is not known")
        if name in options:
            raise ValueError(f"option {name} is given twice")
        options[name] = value or ""
        at, more = found.end(), found[3] == ","
    return options, at


def _moment(text: str) -> int:
    """YYYYMMDD[HHMM[SS]], UTC with a Z behind it, else local time."""
    found = _MOMENT.fullmatch(text)
    if not found:
        raise ValueError(f"{shown(text)} is not a date such as 20301231 or 20301231235959Z")
    *digits, zone = found.groups()
    try:
        moment = datetime(*(int(part or 0) for part in digits), tzinfo=timezone.utc)
        # OpenSSH hands mktime(3) a zero tm_isdst: standard time, in summer too.
        local = (*moment.timetuple()[:6], 0, 0, 0)
        seconds = int(moment.timestamp() if zone else time.mktime(local))
    except (ValueError, OverflowError):
        raise ValueError(f"{shown(text)} is not a date of the calendar") from None
    if seconds <= 0:
        raise ValueError(f"{shown(text)} is before 1970")
    return seconds


def line_for(principal: str, public_key: PublicKey, namespace: str, comment: str = "") -> str:
    """A roster line, without its end, for one name; UsageError for one that cannot stand in it."""
    name = f'"{principal}"' if set(principal) & set(" #") else principal
    line = f'{name} namespaces="{namespace}" {public_key.text} {comment}'.rstrip()
    read = Roster.parse(line)
    means = read.principals(namespace, public_key)
    if not line.isprintable() or read.problems or means != [principal]:
        raise UsageError(
            f"roster: {shown(principal)} in namespace {shown(namespace)} does not fit in a line",
            hint="use names of letters, digits, dots and dashes, such as alice or alice@lab",
        )
    return line


def listed(text: str, patterns: str) -> bool:
    """Whether a list of patterns with commas (`*`, `?`, `!` in front to refuse) takes `text`."""
    taken = False
    for pattern in patterns.split(","):
        refuses = pattern.startswith("!")
        if pattern and _fits(text.encode(*_BYTES), pattern[refuses:].encode(*_BYTES)):
            if refuses:
                return False
            taken = True
    return taken


def _fits(text: bytes, pattern: bytes) -> bool:
    """Linear in practice: only the last `*` seen is ever widened."""
    at = mark = 0
    where, back = 0, -1
    while at < len(text):
        char = pattern[where : where + 1]
        if char == b"*":
            back, mark, where = where, at, where + 1
        elif char in (b"?", text[at : at + 1]):
            at, where = at + 1, where + 1
        elif back >= 0:
            mark += 1
            at, where = mark, back + 1
        else:
            return False
    return not pattern[where:].strip(b"*")

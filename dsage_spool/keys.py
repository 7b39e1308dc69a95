"""Private keys: where they lie on disk, how they are opened, how a new one is made.

A key is opened by the first of: the plain file, the agent that holds it, the passphrase a person
types. Fails with `UsageError` (there is no such key), `Refused` (others can read it, it is
encrypted and nobody opens it, it is of a weak kind), `BadFormat` (not a key), `DiskError`, and
`Unreachable` (an agent is asked and does not answer).

A new key appears whole or not at all: it is written under another name and linked to its own, so
that of two processes making it at once both end with the same key.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from dsage_spool.agent import agent_signers
from dsage_spool.errors import BadFormat, Denied, DiskError, Refused, UsageError
from dsage_spool.sshkey import PrivateKeySigner, PublicKey, Signer

MAX_KEY_FILE = 64 * 1024
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"

AskPassphrase = Callable[[], str]


def load_signer(
    path: str | Path,
    passphrase: AskPassphrase | None = None,
    environ: Mapping[str, str] | None = None,
) -> Signer:
    """The signer for a private key file (OpenSSH or PEM), or for a `.pub` the agent has the key of.

    For an encrypted key the agent is asked before the person is. `environ` says where the agent is.
    """
    path = Path(path)
    text = _read_private(path)
    if not text.lstrip().startswith(b"-----BEGIN"):
        return _held_by_agent(path, environ)
    try:
        return PrivateKeySigner(_open(path, text, None))
    except _Locked:
        held = _from_agent(path.with_name(path.name + ".pub"), environ)
    return held or _unlock(path, text, passphrase)


class _Locked(Exception):
    """Not to be opened without a passphrase, or without the token it belongs to."""


def _open(path: Path, text: bytes, password: bytes | None) -> object:
    openssh = text.lstrip().startswith(_OPENSSH)
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        return load(text, password)
    except (TypeError, UnsupportedAlgorithm) as error:
        # TypeError is how `cryptography` says that a passphrase is missing.
        raise _Locked(str(error)) from None
    except ValueError:
        if password is not None:
            raise Refused(f"{path}: the passphrase does not open it", "type it again") from None
        raise BadFormat(
            f"{path}: not a private key that can be read",
            hint="ssh-keygen -y -f PATH shows whether OpenSSH can read it",
        ) from None


def _unlock(path: Path, text: bytes, passphrase: AskPassphrase | None) -> Signer:
    word = passphrase() if passphrase else ""
    try:
        return PrivateKeySigner(_open(path, text, word.encode() or None))
    except _Locked:
        raise Refused(
            f"{path}: the key is locked, and the agent does not hold it",
            hint=f"ssh-add {path}",
        ) from None


def _from_agent(public_path: Path, environ: Mapping[str, str] | None) -> Signer | None:
    try:
        public = PublicKey.parse(public_path.read_text()[:MAX_KEY_FILE])
    except (OSError, UnicodeDecodeError, BadFormat, Refused):
        return None
    return next((held for held in agent_signers(environ) if held.public == public), None)


def _held_by_agent(path: Path, environ: Mapping[str, str] | None) -> Signer:
    if signer := _from_agent(path, environ):
        return signer
    raise Refused(
        f"{path}: not a private key, nor a public key that the agent holds",
        hint=f"ssh-add {path.with_suffix('')}" if path.suffix == ".pub" else "ssh-add -l",
    )


def _read_private(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_KEY_FILE + 1)
            _refuse_if_open_to_others(path, text, os.fstat(file.fileno()))
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"{path}: no such key", "dsage-spool init makes one") from None
    except PermissionError:
        raise Denied(f"{path}: the key may not be read", f"ls -l {path}") from None
    except OSError as error:
        raise DiskError(f"{path}: the key cannot be read: {error.strerror}") from None
    if len(text) > MAX_KEY_FILE:
        raise BadFormat(f"{path}: too big for a key")
    return text


def _refuse_if_open_to_others(path: Path, text: bytes, status: os.stat_result) -> None:
    """The rule of ssh(1): only the owner's own keys are judged, he alone can put them right."""
    private = text.lstrip().startswith(b"-----BEGIN")
    if os.name == "nt" or not private or status.st_uid != os.getuid():
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise Refused(f"{path}: mode {mode:04o} lets others at this key", f"chmod 600 {path}")


def find_signer(
    path: str | None,
    home: Path,
    environ: Mapping[str, str],
    passphrase: AskPassphrase | None = None,
) -> Signer:
    """The key to sign with: `path`, $DSAGE_SPOOL_KEY, our own, one of ~/.ssh, the agent's first.

    The first that is there is taken; when it does not open that is an error, since signing under
    another name would be a surprise.
    """
    named = path or environ.get("DSAGE_SPOOL_KEY")
    if named:
        return load_signer(_at_home(named, home), passphrase, environ)
    for place in usual_places(home, environ):
        if _is_there(place):
            return load_signer(place, passphrase, environ)
    for held in agent_signers(environ):
        return held
    raise UsageError(
        "key: none in the usual places, and none in the ssh agent",
        hint="run dsage-spool init to make one, or name one with --key PATH",
    )


def _is_there(place: Path) -> bool:
    try:
        return place.is_file()
    except OSError as error:
        raise DiskError(
            f"{place}: cannot be looked at: {error.strerror}", "name a key with --key PATH"
        ) from None


def own_key_path(home: Path, environ: Mapping[str, str]) -> Path:
    """Where the key lies that `dsage-spool init` makes."""
    config = environ.get("XDG_CONFIG_HOME") or home / ".config"
    return Path(config) / "dsage-spool" / "id_ed25519"


def usual_places(home: Path, environ: Mapping[str, str]) -> list[Path]:
    """Where a person's key is looked for, in this order."""
    names = ("id_ed25519", "id_ecdsa", "id_rsa")
    return [own_key_path(home, environ), *(home / ".ssh" / name for name in names)]


def _at_home(path: str, home: Path) -> Path:
    return home / path[2:] if path.startswith("~/") else Path(path)


def make_key(path: Path, comment: str) -> Signer:
    """A new Ed25519 key, OpenSSH format, no passphrase, `.pub` beside it; one there is kept."""
    public_path = path.with_name(path.name + ".pub")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_once(path, _new_private_key(), 0o600)
        signer = load_signer(path)
        if not public_path.exists():
            line = f"{signer.public.text} {comment}".rstrip() + "\n"
            _write_once(public_path, line.encode(), 0o644)
    except OSError as error:
        raise DiskError(f"{path}: the key cannot be made: {error.strerror}") from None
    return signer


def _new_private_key() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def _write_once(path: Path, data: bytes, mode: int) -> None:
    """The file whole and flushed under its name, unless that name is already taken."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()

"""SSH keys as values: public keys that verify, signers that sign, and their wire encoding.

Pure: no files, no agent, no environment (those are `keys` and `agent`). Ed25519, ECDSA over the
three NIST curves, RSA with SHA-2 from 2048 bits on, and Ed25519 on a FIDO token (verified only).

Fails with `BadFormat` (a key that cannot be read), `Refused` (one that can, but is too weak or of a
kind we do not know) and `BadSignature`. A blob has to be spelled in the one way an encoder writes:
then two keys are equal exactly if their blobs are.
Sources: RFC 4251 (5), RFC 4253 (6.6), RFC 5656, RFC 8332, RFC 8709, OpenSSH PROTOCOL.u2f.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from dsage_spool.errors import BadFormat, BadSignature, Refused

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 16384

_USER_PRESENT = 0x01
_CURVES = tuple(f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521))
_RSA = ("rsa-sha2-256", "rsa-sha2-512")


def shown(text: str) -> str:
    """Text from outside as it may stand in a message: quoted, escaped, not too long."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


# --- the SSH wire encoding (RFC 4251, section 5) ---


def wire_string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def wire_integer(number: int) -> bytes:
    """A non-negative `mpint`."""
    return wire_string(number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b"")


class WireReader:
    """Takes SSH wire values off the front of `data`; ValueError where they are not as asked."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError("it ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.number())

    def word(self) -> str:
        return self.string().decode("ascii")

    def integer(self) -> int:
        raw = self.string()
        number = int.from_bytes(raw, "big", signed=True)
        if number < 0 or wire_integer(number)[4:] != raw:
            raise ValueError("a number in it is negative or padded")
        return number

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("bytes follow its end")


# --- public keys: how each kind is read, and how it verifies ---


def _read_ed25519(kind: str, reader: WireReader) -> Any:
    return ed25519.Ed25519PublicKey.from_public_bytes(reader.string())


def _verify_ed25519(kind: str, key: Any, algorithm: str, reader: WireReader, data: bytes) -> None:
    signature = reader.string()
    _expect(algorithm, kind, reader)
    key.verify(signature, data)


def _read_token(kind: str, reader: WireReader) -> Any:
    key = _read_ed25519(kind, reader)
    return key, hashlib.sha256(reader.string()).digest()


def _verify_token(kind: str, key: Any, algorithm: str, reader: WireReader, data: bytes) -> None:
    """OpenSSH PROTOCOL.u2f: the token signs hashes, a byte of flags and a counter."""
    public, application = key
    signature, told = reader.string(), reader.take(5)
    _expect(algorithm, kind, reader)
    if not told[0] & _USER_PRESENT:
        raise ValueError("the token was not touched for it")
    public.verify(signature, application + told + hashlib.sha256(data).digest())


def _read_ecdsa(kind: str, reader: WireReader) -> Any:
    curve, point = reader.word(), reader.string()
    if curve != kind[-len("nistp256") :] or point[:1] != b"\x04":
        raise ValueError("its curve or its point is not what its name says")
    from . import sshalgorithms as ssh

    return ssh.curve_point(ssh.CURVES[kind][0], point)


def _verify_ecdsa(kind: str, key: Any, algorithm: str, reader: WireReader, data: bytes) -> None:
    from . import sshalgorithms as ssh

    pair = WireReader(reader.string())
    _expect(algorithm, kind, reader)
    r, s = pair.integer(), pair.integer()
    pair.end()
    key.verify(ssh.pair_to_der(r, s), data, ssh.CURVES[kind][1])


def _read_rsa(kind: str, reader: WireReader) -> Any:
    exponent, modulus = reader.integer(), reader.integer()
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise Refused(
            f"RSA key of {modulus.bit_length()} bits: outside {MIN_RSA_BITS} to {MAX_RSA_BITS}",
            hint="use an Ed25519 key: ssh-keygen -t ed25519",
        )
    from . import sshalgorithms as ssh

    return ssh.rsa_numbers(exponent, modulus).public_key()


def _verify_rsa(kind: str, key: Any, algorithm: str, reader: WireReader, data: bytes) -> None:
    signature = reader.string()
    reader.end()
    if algorithm not in _RSA:
        raise ValueError(f"{shown(algorithm)} is too weak, or not for RSA keys")
    # Some agents leave leading zeros out, and OpenSSH puts them back.
    full = signature.rjust((key.key_size + 7) // 8, b"\0")
    from . import sshalgorithms as ssh

    key.verify(full, data, ssh.RSA_PADDING, ssh.RSA_HASHES[algorithm])


def _expect(algorithm: str, kind: str, reader: WireReader) -> None:
    reader.end()
    if algorithm != kind:
        raise ValueError(f"it is a signature for {shown(algorithm)}, not for {kind}")


_Read = Callable[[str, WireReader], Any]
_Verify = Callable[[str, Any, str, WireReader, bytes], None]
KINDS: dict[str, tuple[_Read, _Verify]] = {
    "ssh-ed25519": (_read_ed25519, _verify_ed25519),
    "sk-ssh-ed25519@openssh.com": (_read_token, _verify_token),
    "ssh-rsa": (_read_rsa, _verify_rsa),
    **{kind: (_read_ecdsa, _verify_ecdsa) for kind in _CURVES},
}


class PublicKey:
    """An SSH public key, equal to another by its blob. Parsed once; verifying is then cheap."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        try:
            reader = WireReader(blob)
            self.kind = reader.word()
            if self.kind not in KINDS:
                raise Refused(f"public key: kind {shown(self.kind)} is not supported")
            read, self._verify = KINDS[self.kind]
            self._key = read(self.kind, reader)
            reader.end()
        except ValueError as error:
            raise BadFormat(f"public key: cannot be read: {error}") from None

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """From a line as in a `.pub` file: `ssh-ed25519 AAAA... comment`."""
        words = re.split("[ \t]+", text.strip(" \t\r\n"), maxsplit=2)
        if len(words) < 2:
            raise BadFormat("public key: not a line of the form 'ssh-ed25519 AAAA...'")
        try:
            key = cls(strict_base64(words[1]))
        except ValueError as error:
            raise BadFormat(f"public key: {error}") from None
        if key.kind != words[0]:
            raise BadFormat(f"public key: says {shown(words[0])} but is {key.kind}")
        return key

    @property
    def text(self) -> str:
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.blob)

    def verify(self, signature_blob: bytes, data: bytes) -> None:
        """BadSignature unless `signature_blob` (SSH wire form) is this key's for `data`."""
        try:
            reader = WireReader(signature_blob)
            self._verify(self.kind, self._key, reader.word(), reader, data)
        except InvalidSignature:
            raise BadSignature(
                f"bad signature: key {self.fingerprint} has not signed these bytes",
                hint="the file was altered, or another key signed it",
            ) from None
        except ValueError as error:
            raise BadSignature(f"bad signature: cannot be read: {error}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.blob == self.blob

    def __hash__(self) -> int:
        return hash(self.blob)

    def __repr__(self) -> str:
        return f"<PublicKey {self.kind} {self.fingerprint}>"


def fingerprint_of(blob: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return "SHA256:" + digest.rstrip("=")


def strict_base64(text: str) -> bytes:
    """Only the one spelling an encoder writes: no character of a signature is without meaning."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise ValueError("its base64 is damaged")
    return data


# --- private keys ---


class Signer(Protocol):
    """Whoever holds a private key: a file, an agent, a token."""

    public: PublicKey

    def sign_blob(self, data: bytes) -> bytes:
        """The signature of `data` in SSH wire form."""
        ...


class PrivateKeySigner(Signer):
    """Signs with a private key of the `cryptography` package; RSA as rsa-sha2-512."""

    def __init__(self, key: Any) -> None:
        self._key = key
        try:
            self.public = _public_key_of(key)
        except ValueError as error:
            raise Refused(f"private key: {error}") from None

    @classmethod
    def passing(cls) -> PrivateKeySigner:
        """A new Ed25519 key that lives in this object only."""
        return cls(ed25519.Ed25519PrivateKey.generate())

    def sign_blob(self, data: bytes) -> bytes:
        kind, key = self.public.kind, self._key
        if kind == "ssh-ed25519":
            return wire_string(kind.encode()) + wire_string(key.sign(data))
        from . import sshalgorithms as ssh

        if kind == "ssh-rsa":
            kind, body = _RSA[1], key.sign(data, ssh.RSA_PADDING, ssh.RSA_HASHES[_RSA[1]])
        else:
            r, s = ssh.der_to_pair(key.sign(data, ssh.CURVES[kind][1]))
            body = wire_integer(r) + wire_integer(s)
        return wire_string(kind.encode()) + wire_string(body)


def _public_key_of(key: Any) -> PublicKey:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        raw = key.public_key().public_bytes_raw()
        return PublicKey(wire_string(b"ssh-ed25519") + wire_string(raw))
    from . import sshalgorithms as ssh

    if not isinstance(key, ssh.PRIVATE_KINDS):
        raise Refused("private key: only Ed25519, ECDSA and RSA are supported")
    return PublicKey.parse(ssh.public_line(key.public_key()))

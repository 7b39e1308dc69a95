"""Keys in the SSH agent, spoken to over its Unix socket.

No agent is an ordinary answer: an empty list. An agent that is there and does not answer in time,
or answers nonsense, is `Unreachable`; one that will not sign is `Refused`. Each question has a
connection of its own, closed after it: a signer may be used from any thread and after a fork.
Source: draft-miller-ssh-agent, sections 3.5 (list) and 3.6 (sign).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from dsage_spool.errors import BadFormat, BadSignature, Refused, Unreachable
from dsage_spool.sshkey import PublicKey, Signer, WireReader, wire_string

LIST_SECONDS = 5.0
# A person may have to confirm, or to touch a token.
SIGN_SECONDS = 60.0

_FAILURE = 5
_LIST, _LISTED = 11, 12
_SIGN, _SIGNED = 13, 14
_RSA_SHA2_512 = 4
_MAX_ANSWER = 256 * 1024


class AgentSigner(Signer):
    """A key whose private half the agent at `address` holds. `comment` is the agent's."""

    def __init__(self, address: str, public: PublicKey, comment: str) -> None:
        self.address, self.public, self.comment = address, public, comment

    def sign_blob(self, data: bytes) -> bytes:
        flags = _RSA_SHA2_512 if self.public.kind == "ssh-rsa" else 0
        body = wire_string(self.public.blob) + wire_string(data) + flags.to_bytes(4, "big")
        answer = _ask(self.address, _SIGN, body, SIGN_SECONDS)
        try:
            kind, reader = answer[0], WireReader(answer[1:])
            signature = reader.string() if kind == _SIGNED else b""
            self.public.verify(signature, data)
        except (ValueError, BadSignature):
            raise Refused(
                f"ssh agent: did not sign with key {self.public.fingerprint}",
                hint="ssh-add -l lists its keys; a locked key or a token may want to be confirmed",
            ) from None
        return signature


def agent_signers(environ: Mapping[str, str] | None = None) -> list[Signer]:
    """The agent's keys in its order, less those of kinds we do not know; [] where no agent runs."""
    address = (os.environ if environ is None else environ).get("SSH_AUTH_SOCK", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return []
    try:
        answer = _ask(address, _LIST, b"", LIST_SECONDS)
        return _read_list(address, answer) if answer[0] != _FAILURE else []
    except ValueError as error:
        raise _silent(address, str(error)) from None
    except Unreachable as error:
        if isinstance(error.__cause__, (FileNotFoundError, ConnectionRefusedError)):
            return []
        raise


def _read_list(address: str, answer: bytes) -> list[Signer]:
    reader, signers = WireReader(answer), []
    if reader.take(1)[0] != _LISTED:
        raise ValueError("it is not a list of keys")
    for _ in range(reader.number()):
        blob, comment = reader.string(), reader.string().decode(errors="replace")
        try:
            signers.append(AgentSigner(address, PublicKey(blob), comment))
        except (BadFormat, Refused):
            continue
    return signers


def _ask(address: str, kind: int, body: bytes, seconds: float) -> bytes:
    """One question, one answer; the time-out holds for each step on the socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(seconds)
            line.connect(address)
            line.sendall(wire_string(bytes([kind]) + body))
            size = int.from_bytes(_receive(line, 4), "big")
            if not 0 < size <= _MAX_ANSWER:
                raise _silent(address, f"an answer of {size} bytes")
            return _receive(line, size)
    except OSError as error:
        raise _silent(address, str(error)) from error


def _receive(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = line.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("the line was closed")
        data += piece
    return data


def _silent(address: str, reason: str) -> Unreachable:
    return Unreachable(
        f"ssh agent: no good answer at {address}: {reason}",
        hint="start it anew, or unset SSH_AUTH_SOCK",
    )

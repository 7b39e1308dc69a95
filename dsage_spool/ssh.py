"""SSH connections that carry SFTP sessions: the only module that imports paramiko.

Host keys are pinned: an unknown, changed or revoked one is Refused with what to do by hand. Login
is by key only: plain identity files (and a certificate beside them), then the agent. A refused
login is Refused; a server that is away, drops the line or falls silent is Unreachable, in seconds:
every step has a time-out and `line.Liveness` watches what is open. After any failure nothing stays
open.
A connection belongs to the process that made it; each thread takes its own session: `files()`.
"""

from __future__ import annotations

import copy
import logging
import os
import socket
import threading
from typing import Any, Callable, Iterator

import paramiko
from paramiko.agent import AgentSSH

from . import known_hosts
from .address import Address, parse_address
from .errors import Refused, Unreachable, UsageError
from .line import Command, Liveness, tcp
from .sftp import SftpFiles
from .ssh_config import Config, Login, Settings, ask_ssh, login_from
from .text import clean

__all__ = ["Address", "Config", "Connection", "parse_address"]

# OpenSSH hangs up after this many refused keys (MaxAuthTries), and counts them against the address.
MOST_KEYS = 6
MOST_JUMPS = 8
_FAILURES = (paramiko.SSHException, EOFError, OSError)

# Its lines would appear on the terminal, and in the mail of cron.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


class Connection:
    """An SSH connection to the host of `address`. Use as a context manager, or close it."""

    def __init__(self, address: Address, login: Login, transport: Any, config: Config) -> None:
        self.address, self.login, self.config = address, login, config
        self._transport, self._process = transport, os.getpid()
        self._below: list[Callable[[], None]] = []
        self._liveness = Liveness(transport, config.interval)

    @classmethod
    def connect(
        cls, address: Address, *, config: Config | None = None, _jumps: int = 0, _via: Any = None
    ) -> Connection:
        """Log in, as `ssh` would with the user's configuration. Refused, Unreachable."""
        config = config or Config()
        login = login_from(_settings(address, config), address)
        below: list[Callable[[], None]] = []
        try:
            line = _open_line(login, config, below, _jumps, _via)
            transport = _opened_transport(line, login, config, below)
            _check_host_key(transport, login)
            _authenticate(transport, login)
            connection = cls(address, login, transport, config)
        except BaseException:
            _close_all(below)
            raise
        connection._below = below
        return connection

    def files(self, root: str | None = None) -> SftpFiles:
        """A new session, for one thread; on the address's path or another. About 8 at a time."""
        if os.getpid() != self._process:
            raise UsageError(f"{self.login}: used after a fork", "connect in the child")
        stream = self._open_sftp()
        try:
            path = self.address.path if root is None else root
            return SftpFiles(stream, path, timeout=self.config.silence, name=str(self.login))
        except BaseException:
            stream.close()
            raise

    def _open_sftp(self) -> _ChannelStream:
        timeout = _timeout(self.login, self.config)
        try:
            channel = self._transport.open_session(timeout=timeout)
        except paramiko.ChannelException as error:
            hint = "close some sessions; MaxSessions in the host's sshd_config is the limit"
            raise Refused(f"{self.login}: opens no further session", hint) from error
        except _FAILURES as error:
            raise self._lost(error) from error
        # paramiko waits for the answer to this without any time-out.
        alarm = threading.Timer(timeout, channel.close)
        alarm.daemon = True
        alarm.start()
        try:
            channel.invoke_subsystem("sftp")
        except _FAILURES as error:
            if alarm.finished.is_set() or not self.alive:
                raise self._lost(error) from error
            channel.close()
            hint = "the line `Subsystem sftp internal-sftp` in the host's sshd_config offers it"
            raise Refused(f"{self.login}: offers no SFTP", hint) from error
        finally:
            alarm.cancel()
        return _ChannelStream(channel, self._liveness)

    def _lost(self, error: BaseException) -> Unreachable:
        text = self._liveness.reason or clean(str(error)) or "closed"
        return Unreachable(f"{self.login}: connection lost: {text}", "connect again")

    @property
    def alive(self) -> bool:
        return self._transport.is_active()

    def open_channel_to(self, host: str, port: int, timeout: float) -> paramiko.Channel:
        """A line from this host onward, as ProxyJump needs it."""
        try:
            return self._transport.open_channel(
                "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=timeout
            )
        except _FAILURES as error:
            hint = f"can {self.login.host} reach it, and does its sshd_config allow forwarding?"
            text = clean(str(error)) or "closed"
            raise Unreachable(f"{host}:{port} through {self.login}: {text}", hint) from error

    def close(self) -> None:
        self._liveness.stop()
        _close_all(self._below)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ChannelStream:
    """A channel as a `pipeline.Stream`: its failures are OSError, and say why."""

    def __init__(self, channel: paramiko.Channel, liveness: Liveness) -> None:
        self._channel, self._liveness = channel, liveness
        self.settimeout = channel.settimeout

    def send(self, data: bytes) -> None:
        try:
            self._channel.sendall(data)
        except TimeoutError:
            raise
        except (paramiko.SSHException, OSError) as error:
            raise OSError(self._liveness.reason or str(error)) from error

    def recv(self, count: int) -> bytes:
        data = self._channel.recv(count)
        if not data and self._liveness.reason:
            raise EOFError(self._liveness.reason)
        return data

    def close(self) -> None:
        try:
            self._channel.close()
        except _FAILURES:
            pass  # the line is gone, and with it the channel


def _close_all(below: list[Callable[[], None]]) -> None:
    while below:
        below.pop()()


def _timeout(login: Login, config: Config) -> float:
    return login.timeout or config.timeout


def _settings(address: Address, config: Config) -> Settings:
    settings = ask_ssh(address, config)
    return _read_with_paramiko(address, config) if settings is None else settings


def _read_with_paramiko(address: Address, config: Config) -> Settings:
    path = config.file or os.path.expanduser("~/.ssh/config")
    if not config.file and not os.path.exists(path):
        return {}
    try:
        found = paramiko.SSHConfig.from_path(path).lookup(address.host)
    except (OSError, paramiko.SSHException) as error:
        raise Refused(f"{path}: cannot be read: {error}") from error
    if "include" in found:
        # It would be passed over in silence, and the wrong key or host be used.
        raise Refused(f"{path}: Include is followed only by ssh itself", "install the ssh program")
    return {key: value if isinstance(value, list) else [value] for key, value in found.items()}


# -- the line ---------------------------------------------------------------------------------


def _open_line(login: Login, config: Config, below: list, jumps: int, via: Any) -> Any:
    """A socket, or what serves as one. What has to be closed with it is added to `below`."""
    timeout = _timeout(login, config)
    if via is None and login.proxy_jump:
        via = _last_hop(login, config, below, jumps)
    if via is not None:
        line = via.open_channel_to(login.host, login.port, timeout)
    elif login.proxy_command:
        command = Command(login.proxy_command)
        below.append(command.close)
        return command.end
    else:
        line = tcp(login.host, login.port, timeout, config.interval)
    below.append(line.close)
    return line


def _last_hop(login: Login, config: Config, below: list, jumps: int) -> Connection:
    """ProxyJump `a,b`: through a to b. As with ssh only the first follows one of its own."""
    if jumps >= MOST_JUMPS:
        raise Refused(f"{login}: ProxyJump leads in a circle", f"look at: ssh -G {login.host}")
    via = None
    for text in login.proxy_jump.split(","):
        hop = parse_address(text if text.startswith("ssh://") else f"ssh://{text.strip()}")
        via = Connection.connect(hop, config=config, _jumps=jumps + 1, _via=via)
        below.append(via.close)
    return via


def _opened_transport(line: Any, login: Login, config: Config, below: list) -> paramiko.Transport:
    """Shake hands, asking first for the kinds of host key that are on file."""
    timeout = _timeout(login, config)
    try:
        transport = paramiko.Transport(line)
        below.append(transport.close)
        transport.banner_timeout = transport.handshake_timeout = timeout
        transport.auth_timeout = transport.channel_timeout = timeout
        options = transport.get_security_options()
        on_file = {key.kind for key in _host_keys(login)}
        # One pass over the bytes instead of two, cipher and digest: many small packets cost less.
        options.ciphers = sorted(options.ciphers, key=lambda name: "gcm" not in name)
        options.key_types = sorted(options.key_types, key=lambda kind: _kind(kind) not in on_file)
        transport.start_client(timeout=timeout)
        if not transport.initial_kex_done:  # a time-out here is no exception
            raise paramiko.SSHException("no answer in time")
    except paramiko.ssh_exception.IncompatiblePeer as error:
        hint = "one of the two is too old: update OpenSSH there or paramiko here"
        raise Refused(f"{login}: no common algorithm: {clean(str(error))}", hint) from error
    except _FAILURES as error:
        hint = "the host may be busy (MaxStartups) or bar this address for a while: try later"
        text = clean(str(error)) or "the line was closed"
        raise Unreachable(f"{login}: no SSH handshake: {text}", hint) from error
    return transport


def _kind(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


# -- the host's key ---------------------------------------------------------------------------


def _host_keys(login: Login) -> list[known_hosts.HostKey]:
    name = known_hosts.host_name(login.host, login.port, login.host_key_alias)
    return known_hosts.of_host(known_hosts.load(login.known_hosts), name)


def _check_host_key(transport: paramiko.Transport, login: Login) -> None:
    shown = transport.get_remote_server_key()
    known_hosts.check(
        _host_keys(login),
        shown.get_name(),
        shown.asbytes(),
        host=str(login),
        name=known_hosts.host_name(login.host, login.port, login.host_key_alias),
        by_hand=f"ssh -p {login.port} {login.user}@{login.host}",
    )


# -- our keys ---------------------------------------------------------------------------------


class _Agent(AgentSSH):
    """The agent behind any socket, with a time-out; paramiko's own knows only the environment's."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__()
        line = socket.socket(socket.AF_UNIX)
        try:
            line.settimeout(timeout)
            line.connect(path)
            self._connect(line)
        except BaseException:
            line.close()
            raise

    def close(self) -> None:
        self._close()


class _Keys:
    """The keys to try, in order, and remarks on those that cannot be tried."""

    def __init__(self, login: Login, timeout: float) -> None:
        self._login, self._timeout = login, timeout
        self.remarks: list[str] = []
        self.agent: _Agent | paramiko.Agent | None = None

    def __iter__(self) -> Iterator[tuple[str, paramiko.PKey]]:
        plain, named = self._from_files()
        yield from plain
        seen = {key.asbytes() for _, key in plain if key.public_blob is None}
        held = [key for key in self._from_agent() if key.asbytes() not in seen]
        held.sort(key=lambda key: key.asbytes() not in named)
        for key in held:
            if key.asbytes() in named or not self._login.identities_only:
                yield f"agent {key.comment or key.get_name()}", key

    def _from_files(self) -> tuple[list[tuple[str, paramiko.PKey]], set[bytes]]:
        """Keys of identity files, and the public parts of those that only an agent can use."""
        plain, named = [], set()
        for path in self._login.identity_files:
            key = None if path.endswith(".pub") else self._load(path)
            if key is None:
                named |= _public_parts(path)
                continue
            plain.append((path, key))
            if key.public_blob is not None:
                bare = copy.copy(key)
                bare.public_blob = None
                plain.append((path, bare))
        return plain, named

    def _load(self, path: str) -> paramiko.PKey | None:
        if not os.path.isfile(path):
            return None
        try:
            return paramiko.PKey.from_path(path)
        except (paramiko.PasswordRequiredException, TypeError):
            self.remarks.append(f"{path} is encrypted: ssh-add {path}")
        except Exception as error:  # paramiko and what is below it raise a dozen kinds
            self.remarks.append(f"{path} cannot be read: {clean(str(error), 80)}")
        return None

    def _from_agent(self) -> list[Any]:
        try:
            if os.name == "nt":
                self.agent = paramiko.Agent()
            elif self._login.agent:
                self.agent = _Agent(self._login.agent, self._timeout)
        except _FAILURES as error:
            self.remarks.append(f"the agent does not answer: {clean(str(error), 80)}")
        return list(self.agent.get_keys()) if self.agent else []

    def close(self) -> None:
        if self.agent:
            self.agent.close()


def _public_parts(path: str) -> set[bytes]:
    try:
        public = path if path.endswith(".pub") else f"{path}.pub"
        return {paramiko.pkey.PublicBlob.from_file(public).key_blob}
    except (OSError, ValueError, UnicodeDecodeError):
        return set()


def _authenticate(transport: paramiko.Transport, login: Login) -> None:
    keys = _Keys(login, transport.auth_timeout)
    tried: list[str] = []
    try:
        for label, key in keys:
            if _accepted(transport, login, key, bool(tried)):
                return
            tried.append(label)
            if len(tried) == MOST_KEYS or not transport.is_active():
                break
    finally:
        keys.close()
    with_what = f"it accepts none of: {', '.join(tried)}" if tried else "there is no key to try"
    remedy = f"put a public key of yours into ~/.ssh/authorized_keys of {login.user} there"
    make = "make one with ssh-keygen; " if not tried and not keys.remarks else ""
    hint = "; ".join([*keys.remarks, make + remedy])
    raise Refused(f"{login}: login refused: {clean(with_what)}", clean(hint, 2000))


def _accepted(transport: Any, login: Login, key: paramiko.PKey, before: bool) -> bool:
    """Whether this key is enough. A line that ends after refusals is one more refusal."""
    try:
        more = transport.auth_publickey(login.user, key)
    except paramiko.BadAuthenticationType as error:
        allowed = clean(", ".join(error.allowed_types))
        raise Refused(f"{login}: the host takes no keys", f"it allows: {allowed}") from error
    except _FAILURES as error:
        lost = not transport.is_active() and not before
        if lost or "timeout" in str(error).lower():
            raise Unreachable(f"{login}: lost during login: {clean(str(error))}") from error
        return False
    if more:
        hint = "use an account where a key is enough"
        raise Refused(f"{login}: wants more than a key: {clean(', '.join(more))}", hint)
    return True

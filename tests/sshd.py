"""Real servers for tests: sftp-server on a socketpair, and sshd on loopback with its own keys."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

REMEDY = "openssh is missing; type: apt-get install openssh-server openssh-client"
SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server",
           "/usr/lib/ssh/sftp-server", "/usr/libexec/sftp-server")  # fmt: skip
SOON = 15.0


def program(name: str) -> str:
    """The absolute path of a program of OpenSSH; without it the test fails with the remedy."""
    if name == "sftp-server":
        found = next((path for path in SERVERS if os.path.exists(path)), None)
    else:
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not found:
        pytest.fail(f"{name}: {REMEDY}")
    return found


class SocketStream:
    """A socket as a `pipeline.Stream`."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.send, self.recv = end.sendall, end.recv
        self.settimeout, self.close = end.settimeout, end.close


class SftpProcess:
    """sftp-server in `folder`, without network or login. `options` are its own."""

    def __init__(self, folder: Path, *options: str, before: tuple[str, ...] = ()) -> None:
        ours, its = socket.socketpair()
        command = [*before, program("sftp-server"), "-d", str(folder), *options]
        with its:
            self.process = subprocess.Popen(
                command, stdin=its, stdout=its, stderr=subprocess.DEVNULL
            )
        self.stream = SocketStream(ours)

    def stop(self) -> None:
        self.stream.close()
        self.process.kill()
        self.process.wait()


class Sshd:
    """An sshd on 127.0.0.1, its files in `folder`: keys, known_hosts, and a client's config.

    The host is called `spoolhost` in the client's config. Another address, and a command before the
    server's own (`ip netns exec`), put it into a network namespace.
    """

    address = "127.0.0.1"
    before: tuple[str, ...] = ()

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder, self.port = folder, _free_port()
        if os.getuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        for key in ("host_key", "user_key"):
            make_key(folder / key)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        self.write_known_hosts((folder / "host_key.pub").read_text())
        (folder / "sshd_config").write_text(self._server_config(options))
        self.config = folder / "config"
        self.config.write_text(self.client_config())
        self.start()

    def start(self) -> None:
        """Listen; again after `stop`, on the same port with the same keys."""
        self._log = open(self.folder / "sshd.log", "ab")
        sshd = [program("sshd"), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        command = [*self.before, *sshd]
        command += _without_penalties(command)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self._log)
        # A test run that is killed cannot clean up: at the end of its pipe this does.
        self._heir = subprocess.Popen(
            ["/bin/sh", "-c", 'read line; kill -9 "$0"', str(self.process.pid)],
            stdin=subprocess.PIPE,
        )
        self._wait_until_it_listens()

    def _server_config(self, options: dict[str, str]) -> str:
        settings = {
            "ListenAddress": self.address,
            "Port": str(self.port),
            "HostKey": str(self.folder / "host_key"),
            "PidFile": "none",
            "AuthorizedKeysFile": str(self.folder / "authorized_keys"),
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "MaxStartups": "200:30:400",
            "MaxSessions": "50",
            "LogLevel": "VERBOSE",
            "Subsystem": "sftp internal-sftp",  # no shell, whose start-up files may hang
            **options,
        }
        return "".join(f"{key} {value}\n" for key, value in settings.items())

    def client_config(self, alias: str = "spoolhost", **options: str) -> str:
        settings = {
            "HostName": self.address,
            "Port": str(self.port),
            "IdentityFile": str(self.folder / "user_key"),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            **options,
        }
        lines = "".join(f"  {key} {value}\n" for key, value in settings.items())
        return f"Host {alias}\n{lines}"

    def write_known_hosts(self, public_key: str) -> None:
        kind, blob = public_key.split()[:2]
        (self.folder / "known_hosts").write_text(f"[{self.address}]:{self.port} {kind} {blob}\n")

    def _wait_until_it_listens(self) -> None:
        until = time.monotonic() + SOON
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                time.sleep(0.01)
        self.stop()
        pytest.fail(f"sshd did not start: {(self.folder / 'sshd.log').read_text()}")

    def sessions(self) -> list[int]:
        """The process ids below this sshd: some for each connection, and their sftp-server."""
        return descendants(self.process.pid)

    def stop(self) -> None:
        self._heir.kill()
        self._heir.communicate()
        below = self.sessions()
        self.process.kill()
        self.process.wait()
        for pid in below:
            _kill(pid)
        self._log.close()


def _without_penalties(command: list[str]) -> list[str]:
    """From OpenSSH 9.8 on a few refused logins bar an address: here that of all tests."""
    option = ["-o", "PerSourcePenalties=no"]
    known = subprocess.run([*command, "-t", *option], capture_output=True).returncode == 0
    return option if known else []


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> None:
    command = [program("ssh-keygen"), "-q", "-t", kind, "-N", passphrase, "-C", path.name]
    subprocess.run([*command, "-f", str(path)], check=True, stdin=subprocess.DEVNULL)


def descendants(pid: int) -> list[int]:
    """All processes below one, parents first."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True
    )
    parents = [tuple(map(int, line.split())) for line in listing.stdout.splitlines()]
    found, fresh = [], [pid]
    while fresh:
        fresh = [child for child, parent in parents if parent in fresh]
        found += fresh
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""The byte line to an SSH server: a TCP connection, or a command of the user's (ProxyCommand).

A line must not outlive its other end unnoticed. TCP alone takes 16 minutes to give up on data that
is never acknowledged, and never does on an idle line; and a process may be frozen while its kernel
still acknowledges. So: TCP_USER_TIMEOUT (RFC 5482) and SO_KEEPALIVE where they exist, and
`Liveness`, which wants answers from the process itself. Raises Unreachable.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from typing import Any

from .errors import Refused, Unreachable

MISSED = 3


def tcp(host: str, port: int, timeout: float, interval: float) -> socket.socket:
    """Connect within `timeout` s; the line dies after about 3 `interval` s without an answer."""
    try:
        line = socket.create_connection((host, port), timeout)
    except OSError as error:
        text = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or error
        hint = f"is the host up, and is its name right? try: ssh -p {port} {host}"
        raise Unreachable(f"{host}:{port}: {text}", hint) from error
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    seconds = max(1, round(interval))
    _set_if_known(line, "TCP_KEEPIDLE", seconds)
    _set_if_known(line, "TCP_KEEPINTVL", seconds)
    _set_if_known(line, "TCP_KEEPCNT", MISSED)
    # It also keeps a request of a process that has died from being executed much later.
    _set_if_known(line, "TCP_USER_TIMEOUT", round(1000 * MISSED * max(interval, 1.0)))
    return line


def _set_if_known(line: socket.socket, option: str, value: int) -> None:
    number = getattr(socket, option, None)
    if number is not None:
        line.setsockopt(socket.IPPROTO_TCP, number, value)


class Command:
    """A shell command whose input and output are the line. `end` is our end of it."""

    def __init__(self, command: str) -> None:
        if os.name != "posix":
            raise Refused("ProxyCommand: needs a Unix system", "use ProxyJump in your ssh config")
        self.end, theirs = socket.socketpair()
        with theirs:
            # stderr would be stray lines on the user's terminal, cron would mail them.
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs,
                stdout=theirs,
                stderr=subprocess.DEVNULL,
            )

    def close(self) -> None:
        self.end.close()
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Liveness:
    """Closes a transport whose server has not answered for three intervals (in seconds).

    `keepalive@openssh.com` with a reply wanted: any answer, a refusal too, comes from a living
    server (RFC 4254, 4). One thread asks and is blocked by a dead server; the other watches it.
    """

    def __init__(self, transport: Any, interval: float) -> None:
        self._transport, self._interval = transport, interval
        self._stopped = threading.Event()
        self._heard = time.monotonic()
        self.reason = ""
        for work in (self._ask, self._watch):
            threading.Thread(target=work, daemon=True, name="dsage-spool-liveness").start()

    def stop(self) -> None:
        self._stopped.set()

    def _ask(self) -> None:
        while not self._stopped.wait(self._interval) and self._transport.is_active():
            try:
                self._transport.global_request("keepalive@openssh.com", wait=True)
            except Exception:  # whatever it is, it was no answer
                continue
            if self._transport.is_active():
                self._heard = time.monotonic()

    def _watch(self) -> None:
        tick = time.monotonic()
        while not self._stopped.wait(self._interval / 4) and self._transport.is_active():
            last, tick = tick, time.monotonic()
            if tick - last > self._interval:
                self._heard = tick  # it was this process that stood still: ask anew
            if tick - self._heard > MISSED * self._interval:
                self.reason = f"no sign of life for {tick - self._heard:.0f} s"
                self._transport.close()

"""Hosts on one machine: network namespaces on a bridge, which can be cut off, one way or both.

Needs root. Everything has the process id of its maker in its name, and is taken away by `close`.
Traffic never leaves the namespaces: the hub has no way out.
"""

from __future__ import annotations

import os
import subprocess
from itertools import count

_labs = count(1)
WAYS = {"in": "input", "out": "output"}


def why_not() -> str:
    """What this machine lacks; empty if hosts can be had."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    name = f"ds-try-{os.getpid()}"
    try:
        _run("ip", "netns", "add", name)
        _run("ip", "netns", "exec", name, "nft", "list", "tables")
        _run("ip", "netns", "exec", name, "ss", "-ltn")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces, nft or ss: {error}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return ""


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Hosts:
    """One bridge, and a namespace for each name, with an address of its own."""

    def __init__(self, names: list[str]) -> None:
        self._tag = f"{os.getpid():x}-{next(_labs)}"
        self._spaces: list[str] = []
        self.names = names
        try:
            self._hub()
            for number, name in enumerate(names, 1):
                self._host(number, name)
        except BaseException:
            self.close()
            raise

    def space(self, name: str) -> str:
        return f"ds-{self._tag}-{name}"

    def address(self, name: str) -> str:
        return f"10.99.0.{self.names.index(name) + 1}"

    def inside(self, name: str) -> tuple[str, ...]:
        """What stands before a command that shall run on this host; it replaces itself by that."""
        return ("ip", "netns", "exec", self.space(name))

    def _hub(self) -> None:
        self._add("hub")
        self._ip("hub", "link", "add", "bridge", "type", "bridge")
        self._ip("hub", "link", "set", "bridge", "up")

    def _add(self, name: str) -> None:
        _run("ip", "netns", "add", self.space(name))
        self._spaces.append(self.space(name))
        self._ip(name, "link", "set", "lo", "up")

    def _ip(self, name: str, *words: str) -> None:
        _run("ip", "-n", self.space(name), *words)

    def _host(self, number: int, name: str) -> None:
        self._add(name)
        port = f"v{number}"
        self._ip(
            "hub", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", self.space(name)
        )
        self._ip("hub", "link", "set", port, "master", "bridge", "up")
        self._ip(name, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
        self._ip(name, "link", "set", "eth0", "up")

    # -- trouble -------------------------------------------------------------------------------

    def cut(self, name: str, ways: tuple[str, ...] = ("in", "out")) -> None:
        """Packets are dropped without a word, one way or both."""
        rules = [f"add chain inet cut {way} {{ type filter hook {WAYS[way]} priority 0; policy drop; }}"
                 for way in ways]  # fmt: skip
        self._nft(name, "add table inet cut", *rules)

    def heal(self, name: str) -> None:
        self._nft(name, "add table inet cut", "delete table inet cut")

    def _nft(self, name: str, *rules: str) -> None:
        command = [*self.inside(name), "nft", "-f", "-"]
        subprocess.run(command, check=True, input="\n".join(rules), text=True, capture_output=True)

    def listening(self, name: str) -> list[str]:
        """Listening TCP and UDP sockets of a host, one line each."""
        return _run(*self.inside(name), "ss", "-Hlntup").strip().splitlines()

    def close(self) -> None:
        for space in reversed(self._spaces):
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        self._spaces = []

"""How to log in to a host, from the user's own ssh configuration.

`ssh -G HOST` resolves it exactly as ssh would (Include, Match, tokens in host names); where there
is no ssh program, `ssh.py` asks paramiko's reader instead and hands its answer to `login_from`.
Raises Refused if the configuration is broken, Unreachable if ssh does not answer in time.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field

from .address import Address
from .errors import Refused, Unreachable
from .text import clean

Settings = dict[str, list[str]]

KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


def _config_file() -> str:
    return os.environ.get("DSAGE_SPOOL_SSH_CONFIG", "")


@dataclass(frozen=True)
class Config:
    """How to connect. Times in seconds. `file` is an ssh config to read instead of the user's own.

    `timeout` bounds each step of connecting; `interval` is that of keepalives, three missed end the
    connection; `silence` is the longest wait for an answer of the SFTP server.
    """

    file: str = field(default_factory=_config_file)
    timeout: float = 10.0
    interval: float = 5.0
    silence: float = 30.0
    ssh: str = "ssh"  # "" reads the configuration without the ssh program


@dataclass(frozen=True)
class Login:
    """What is needed to log in. `agent` is the path of a socket, or empty."""

    host: str
    port: int
    user: str
    identity_files: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str = ""
    proxy_jump: str = ""
    proxy_command: str = ""
    known_hosts: tuple[str, ...] = ()
    host_key_alias: str = ""
    timeout: float = 0.0  # 0 where the configuration sets none

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")


def ask_ssh(address: Address, config: Config) -> Settings | None:
    """What `ssh -G` says; None if there is no such program."""
    program = shutil.which(config.ssh) if config.ssh else None
    if program is None:
        return None
    command = [program, "-G", *(["-F", config.file] if config.file else [])]
    command += ["-l", address.user] if address.user else []
    command += ["-p", str(address.port)] if address.port else []
    try:
        answer = subprocess.run(
            [*command, "--", address.host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=config.timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"ssh -G {address.host}: no answer in time") from error
    if answer.returncode:
        lines = answer.stderr.decode("utf-8", "replace").strip().splitlines()
        said = clean(lines[-1]) if lines else f"ssh ended with {answer.returncode}"
        raise Refused(f"ssh config of {address.host}: {said}", f"try: ssh -G {address.host}")
    return read_settings(answer.stdout.decode("utf-8", "replace"))


def read_settings(text: str) -> Settings:
    """`key value` lines as lists by key."""
    settings: Settings = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        settings.setdefault(key.lower(), []).append(value.strip())
    return settings


def login_from(settings: Settings, address: Address) -> Login:
    """The settings as a Login; what the address names comes first."""

    def one(key: str, default: str = "") -> str:
        value = settings.get(key, [default])[0]
        return "" if value.lower() == "none" else value

    host = one("hostname", address.host) or address.host
    user = address.user or one("user") or getpass.getuser()
    port = address.port or int(one("port", "22"))
    tokens = {"%": "%", "h": host, "n": address.host, "p": str(port), "r": user}
    tokens |= {"d": os.path.expanduser("~"), "u": getpass.getuser()}
    identities = settings.get("identityfile") or list(IDENTITIES)
    return Login(
        host=host,
        port=port,
        user=user,
        identity_files=tuple(_file(name, tokens) for name in identities if name.lower() != "none"),
        identities_only=one("identitiesonly").lower() == "yes",
        agent=_agent(settings.get("identityagent", ["SSH_AUTH_SOCK"])[0], tokens),
        proxy_jump=one("proxyjump"),
        proxy_command=_expanded(one("proxycommand"), tokens),
        known_hosts=tuple(_file(name, tokens) for name in _known_hosts(settings)),
        host_key_alias=one("hostkeyalias"),
        timeout=float(one("connecttimeout") or 0),
    )


def _known_hosts(settings: Settings) -> list[str]:
    values = settings.get("userknownhostsfile", []) + settings.get("globalknownhostsfile", [])
    # `ssh -G` prints several names on one line, and does not quote those with spaces.
    lists = [[value] if os.path.exists(value) else value.split() for value in values]
    return sum(lists, []) or list(KNOWN_HOSTS)


def _expanded(text: str, tokens: dict[str, str]) -> str:
    return re.sub("%(.)", lambda found: tokens.get(found[1], found[0]), text)


def _file(name: str, tokens: dict[str, str]) -> str:
    name = re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], ""), name.strip('"'))
    return os.path.expanduser(_expanded(name, tokens))


def _agent(setting: str, tokens: dict[str, str]) -> str:
    if setting.lower() == "none":
        return ""
    if setting == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    if setting.startswith("$") and not setting.startswith("${"):
        return os.environ.get(setting[1:], "")
    return _file(setting, tokens)

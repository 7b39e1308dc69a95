"""Where things are and how they are set: flag > environment > config file > default.

The config file is `$XDG_CONFIG_HOME/dsage-spool/config`, lines of `key = value` (configparser, one
section-less file). Every key has an environment variable `DSAGE_SPOOL_<KEY>`.
"""

from __future__ import annotations

import configparser
import getpass
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from . import names
from .errors import UsageError

KEYS = {
    "spool": "the spool to use: a path, or user@host:path",
    "user": "your name in the roster",
    "key": "the private key that signs your jobs",
    "worker": "the name of this machine's worker in the roster",
    "worker_key": "the private key that signs this worker's results",
    "roster": "a roster file of your own, trusted instead of the spool's",
    "ssh_config": "an ssh configuration file to use instead of ~/.ssh/config",
    "watch": "on, or off: the server asks the kernel for no events, and looks by itself",
}


@dataclass(frozen=True)
class Config:
    """Settings of this person on this machine; `get` answers a string or an empty one."""

    home: Path
    environ: Mapping[str, str]
    values: Mapping[str, str]

    def get(self, key: str, flag: str | None = None) -> str:
        if flag:
            return flag
        return self.environ.get(f"DSAGE_SPOOL_{key.upper()}") or self.values.get(key, "")

    @property
    def config_folder(self) -> Path:
        return self._xdg("XDG_CONFIG_HOME", ".config")

    @property
    def state_folder(self) -> Path:
        return self._xdg("XDG_STATE_HOME", ".local/state")

    def _xdg(self, variable: str, usual: str) -> Path:
        base = self.environ.get(variable, "")
        return (Path(base) if os.path.isabs(base) else self.home / usual) / "dsage-spool"

    def user(self, flag: str | None = None) -> str:
        """The person's name in the roster; the login name unless set."""
        name = self.get("user", flag) or _login_name(self.environ)
        if not names.is_person(name):
            raise UsageError(f"{name!r} cannot be a name in a roster", "choose one with --user")
        return name

    def worker(self, flag: str | None = None) -> str:
        name = self.get("worker", flag) or names.worker_from_host(socket.gethostname())
        if not names.is_worker(name):
            raise UsageError(
                f"{name!r} cannot be a worker's name", "letters, digits, - and _ only: --name kiwi"
            )
        return name

    def watch(self) -> bool:
        """Whether the server shall ask for events."""
        word = self.get("watch") or "on"
        if word not in ("on", "off"):
            raise UsageError(f"watch is {word!r}", "it can be `on` or `off`")
        return word == "on"

    def spool(self, flag: str | None = None) -> str:
        place = self.get("spool", flag)
        if place:
            return place
        if Path("spool/spool.json").is_file():
            return "spool"
        raise UsageError(
            "no spool named", "pass --spool PATH or user@host:path, or set DSAGE_SPOOL_SPOOL"
        )


def load_config(environ: Mapping[str, str] | None = None, home: Path | None = None) -> Config:
    """The settings in force; UsageError if the config file cannot be read."""
    environ = os.environ if environ is None else environ
    home = Path(os.path.expanduser("~")) if home is None else home
    bare = Config(home, environ, {})
    path = bare.config_folder / "config"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return bare
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "make it readable, or remove it") from None
    return Config(home, environ, _parse(path, text))


def _parse(path: Path, text: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string("[all]\n" + text)
    except configparser.Error as error:
        raise UsageError(f"{path}: {error.message}", "lines are `key = value`") from None
    values = dict(parser["all"])
    unknown = sorted(values.keys() - KEYS.keys())
    if unknown:
        raise UsageError(
            f"{path}: unknown key {unknown[0]}", f"keys are {', '.join(sorted(KEYS))}"
        )
    return values


def _login_name(environ: Mapping[str, str]) -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return environ.get("USERNAME", "somebody")

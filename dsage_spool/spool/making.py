"""Make a spool: its folders, README, settings and roster. Safe to repeat: what stands is kept."""

from __future__ import annotations

from typing import Callable

from .. import layout
from ..errors import Exists, Gone
from ..files import Files
from . import settings as settings_file
from .settings import Settings

ROSTER_HEAD = """\
# Who may submit jobs (namespaces="job@dsage-spool") and whose workers may run them
# (namespaces="result@dsage-spool"). A line: NAME namespaces="..." KEY, as in allowed_signers of
# ssh-keygen(1). Lines are printed by `dsage-spool key` on the machine that holds the key.
"""


def make_spool(files: Files, random: Callable[[int], bytes], made: str, **settings: float) -> Settings:
    """Make what is missing; `random(n)` gives n random bytes, `made` is the date to note.

    1 folders, 2 README, 3 roster, 4 spool.json last: a folder with spool.json is a whole spool.
    """
    for folder in layout.FOLDERS:
        _make_folder(files, folder)
        _write_new(files, f"{folder}/.keep", b"")
    _write_new(files, layout.README, layout.README_TEXT.encode())
    _write_new(files, layout.ROSTER, ROSTER_HEAD.encode())
    fresh = Settings(id=random(10).hex(), made=made, **settings)
    _write_new(files, layout.SETTINGS, settings_file.make(fresh))
    files.sync([layout.README, layout.ROSTER, layout.SETTINGS, ""])
    return settings_file.load(files)


def _make_folder(files: Files, folder: str) -> None:
    try:
        files.make_folder(folder)
    except Exists:
        pass


def _write_new(files: Files, path: str, data: bytes) -> None:
    try:
        files.stat(path)
    except Gone:
        files.write(path, data)

"""The folder `spool/` of the repository is what `dsage-spool init` writes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from dsage_spool import layout
from dsage_spool.files import LocalFiles
from dsage_spool.spool.making import make_spool

ROOT = Path(__file__).resolve().parent.parent
OF_ONE_SPOOL = {layout.SETTINGS, layout.ROSTER}


def tree(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def tracked(folder: str) -> dict[str, bytes]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", folder], cwd=ROOT, capture_output=True, check=True
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return {os.path.relpath(name, folder): (ROOT / name).read_bytes() for name in names}


def test_the_spool_in_the_repository_is_exactly_what_init_writes(tmp_path):
    make_spool(LocalFiles(tmp_path), os.urandom, "")
    written = {name: data for name, data in tree(tmp_path).items() if name not in OF_ONE_SPOOL}
    assert tracked("spool") == written


def test_what_belongs_to_one_spool_is_ignored_by_git():
    names = ["spool.json", "roster", "queue", "server.lock", "queued/x", "journal/1", "log/server.log"]
    ignored = subprocess.run(
        ["git", "check-ignore", *(f"spool/{name}" for name in names)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert len(ignored.stdout.split()) == len(names)

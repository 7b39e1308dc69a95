"""A slot's private folder: the work folder of its jobs, and the files in which they report.

    work/                    where a job runs; empty when it begins
    <job>.<attempt>.stdout   what it prints; others may read along by this name
    <job>.<attempt>.stderr
    report  result           opened once, emptied between jobs, handed to children as open files,
                             as stdout and stderr are, which change their names instead

The slot reads through its own open files, so a job that deletes or replaces names deceives nobody.
Raises OSError.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any

from .. import layout

STDOUT_NAME = "{job}.{attempt}.stdout"
STDERR_NAME = "{job}.{attempt}.stderr"
_IDLE = ("stdout", "stderr")  # their names between jobs
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC | os.O_NOFOLLOW


class Room:
    """The folder and its open files. One job at a time."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.work = os.path.join(folder, "work")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        wipe(folder)
        self.report, self.result = self._open("report"), self._open("result")
        self.out, self.err = self._open(_IDLE[0]), self._open(_IDLE[1])
        self._named = list(_IDLE)

    def _open(self, name: str) -> int:
        """An open file with a number that no child needs for something else."""
        opened = os.open(os.path.join(self.folder, name), _FLAGS, 0o600)
        try:
            return fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 10)
        finally:
            os.close(opened)

    def prepare(self, job: str, attempt: int) -> None:
        """An empty work folder and empty files for one attempt."""
        self._renew_work()
        self._rename([name.format(job=job, attempt=attempt) for name in (STDOUT_NAME, STDERR_NAME)])

    def _rename(self, names: list[str]) -> None:
        """Give the files of the output other names; a job that took one away gets a new file."""
        for place, (old, new) in enumerate(zip(self._named, names)):
            try:
                os.rename(os.path.join(self.folder, old), os.path.join(self.folder, new))
            except FileNotFoundError:
                opened = self.out if place == 0 else self.err
                os.dup2(self._open(new), opened, inheritable=False)
        self._named = names

    def _renew_work(self) -> None:
        try:
            if os.path.islink(self.work):
                os.unlink(self.work)
            os.makedirs(self.work, mode=0o700, exist_ok=True)
            wipe(self.work)
        except (OSError, RecursionError):
            # A job has made something that does not go away: leave it, and move the next one.
            self.work = os.path.join(self.folder, f"work-{os.urandom(6).hex()}")
            os.mkdir(self.work, 0o700)

    def printed(self) -> int:
        """Bytes in stdout and stderr so far."""
        return os.fstat(self.out).st_size + os.fstat(self.err).st_size

    def told(self) -> tuple[str, dict[str, Any] | None]:
        """The stage that the child came to, and its report if that is whole."""
        lines = _read(self.report).decode("utf-8", "replace").split("\n")[:-1]
        stages = [line for line in lines if not line.startswith("{")]
        last = lines[-1] if lines else ""
        return stages[-1] if stages else "", _report_in(last)

    def outputs(self, limit: int) -> dict[str, bytes]:
        """stdout and stderr, together about `limit` bytes; each has a right to half of it."""
        out, err = os.fstat(self.out).st_size, os.fstat(self.err).st_size
        room_err = min(err, max(limit - out, limit // 2)) if limit else err
        room_out = min(out, limit - room_err) if limit else out
        parts = {layout.STDOUT: (self.out, out, room_out), layout.STDERR: (self.err, err, room_err)}
        return {name: _beginning(*part, limit) for name, part in parts.items() if part[1]}

    def result_bytes(self) -> bytes:
        return _read(self.result)

    def clear(self) -> None:
        """Forget the attempt. The work folder stays until the next one."""
        for opened in (self.report, self.result, self.out, self.err):
            if os.fstat(opened).st_size:
                os.ftruncate(opened, 0)
        self._rename(list(_IDLE))

    def remove(self) -> None:
        """The folder goes, as far as that is possible."""
        try:
            wipe(self.folder)
            os.rmdir(self.folder)
        except (OSError, RecursionError):
            pass


def wipe(folder: str) -> None:
    """Empty a folder, also one whose rights were taken away; links are not followed."""
    os.chmod(folder, 0o700)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                wipe(entry.path)
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)


def _report_in(line: str) -> dict[str, Any] | None:
    try:
        report = json.loads(line)
    except ValueError:
        return None
    return report if isinstance(report, dict) and "outcome" in report else None


def _read(opened: int, size: int | None = None) -> bytes:
    """The first `size` bytes, or all."""
    wanted = os.fstat(opened).st_size if size is None else size
    pieces, at = [], 0
    while at < wanted:
        piece = os.pread(opened, min(wanted - at, 1 << 24), at)
        if not piece:
            break
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _beginning(opened: int, size: int, room: int, limit: int) -> bytes:
    data = _read(opened, room)
    if room < size:
        data += b"\n[cut here by dsage-spool: the output limit is %d bytes]\n" % limit
    return data

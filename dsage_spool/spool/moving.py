"""The server's moves, and the one way in which they reach the disk.

Every verb of the server has the same shape, whatever it moves, so that one crash analysis holds for
all (docs/format.md):

    1 write what is new into the job folder (a new job: into tmp/server.<job>)
    2 flush what was written
    3 rename the job folder from state to state       <- the commit point
    4 flush the state folders
    5 tell the journal
    6 put away what has served: locks are removed, drops get a second name in tmp/server.served.* and
      lose the first; the second is removed when the server has time, since freeing blocks that were
      flushed can take milliseconds a file

Many moves share each step, and so one flush. A crash before 3 leaves the job where it was, and the
next pass writes the same again; a crash after 3 leaves drops or locks that the next pass recognises
as served.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Sequence

from .. import layout
from ..errors import Denied, Exists, FileAnswer, Gone, SpoolError
from ..files import Files
from ..states import State
from .journal import Line


SERVED = "server.served."  # prefix in tmp/ of drops that have served


@dataclass
class Change:
    """What one pass does to one job: from the state on disk to the state it shall have."""

    job: str
    origin: State | None = None  # None: there is no job folder yet
    target: State | None = None  # None: it stays where it is
    folder: str = ""  # name of the folder, where that is not the job
    writes: dict[str, bytes] = field(default_factory=dict)
    takes: dict[str, str] = field(default_factory=dict)  # path: name in the job folder
    removes: list[str] = field(default_factory=list)  # small or linked files: cheap to remove
    served: list[str] = field(default_factory=list)  # drops: put aside, removed later
    lines: list[Line] = field(default_factory=list)
    durable: bool = False  # someone is told of it, so it must outlast a power failure

    @property
    def name(self) -> str:
        return self.folder or self.job

    @property
    def home(self) -> str:
        """Where the job folder is before the move."""
        if self.origin is None:
            return layout.in_tmp(f"server.{self.name}")
        return layout.job_folder(self.origin, self.name)

    @property
    def end(self) -> str:
        return layout.job_folder(self.target or self.origin, self.name)


def commit(files: Files, changes: Sequence[Change]) -> list[Line]:
    """Steps 1 to 4 for all changes; answers the lines for the journal."""
    for change in changes:
        _write(files, change)
    durable = [change for change in changes if change.durable]
    if durable:
        _flush_writes(files, durable)
    for change in changes:
        _rename(files, change)
    if durable:
        files.sync(sorted({str(state) for change in durable for state in _touched(change)}))
    return [line for change in changes for line in change.lines]


def refuse(files: Files, changes: Sequence[Change]) -> list[tuple[Change, SpoolError]]:
    """The same for what is rejected; answers what resisted, with the error, and was left alone.

    The reasons are flushed before what was dropped is moved to them, so that neither is ever without
    the other; what lies in a drop box may resist even being moved.
    """
    for change in changes:
        _write(files, change, takes=False)
    _flush_writes(files, changes)
    stuck = [(change, error) for change in changes if (error := _refused(files, change))]
    resisting = {change.name for change, _ in stuck}
    files.sync([change.end for change in changes if change.name not in resisting])
    files.sync([str(State.REJECTED), layout.TMP])
    return stuck


def _refused(files: Files, change: Change) -> SpoolError | None:
    try:
        _take(files, change)
        _rename(files, change)
    except (FileAnswer, Denied) as error:
        return error
    return None


def _flush_writes(files: Files, changes: Sequence[Change]) -> None:
    """Step 2. After a flush that failed nobody can tell any more what of it is on the disk, though
    all of it can still be read: take it away again, so that the next pass writes it anew."""
    try:
        files.sync([path for change in changes for path in _written(change)])
    except SpoolError:
        for change in changes:
            for name in change.writes:
                _unless_failing(files.remove, f"{change.home}/{name}")
        raise


def _unless_failing(operation: Callable[..., None], *arguments: object) -> None:
    try:
        operation(*arguments)
    except SpoolError:
        pass


def tidy(files: Files, changes: Sequence[Change]) -> tuple[list[str], list[tuple[str, SpoolError]]]:
    """Step 6; answers what lies in tmp/ to be removed, and what cannot be put away, with the error.

    What is gone already is as good as put away.
    """
    aside, stuck = [], []
    for change in changes:
        for path in change.removes:
            if error := _unless_gone(files.remove, path):
                stuck.append((path, error))
        for path in change.served:
            rest = layout.in_tmp(f"{SERVED}{path.rpartition('/')[2]}")
            if error := _unless_gone(_put_aside, files, path, rest):
                stuck.append((path, error))
            aside.append(rest)
    return aside, stuck


def _unless_gone(operation: Callable[..., None], *arguments: object) -> SpoolError | None:
    """Whatever somebody has put in a drop box must not stop a pass; a failing disk may."""
    try:
        operation(*arguments)
    except Gone:
        return None
    except (FileAnswer, Denied) as error:
        return error
    return None


def _put_aside(files: Files, path: str, rest: str) -> None:
    """By link and unlink: watchdog holds all events back for half a second after a rename out."""
    try:
        files.link(path, rest)
    except Exists:
        pass
    except Denied:  # Linux lets nobody link what is another user's (fs.protected_hardlinks)
        return files.move(path, rest)
    files.remove(path)


def _write(files: Files, change: Change, takes: bool = True) -> None:
    if change.origin is None and change.target is not None:
        fresh_folder(files, change.home)
    for name, data in change.writes.items():
        files.write(f"{change.home}/{name}", data)
    if takes:
        _take(files, change)


def _take(files: Files, change: Change) -> None:
    for path, name in change.takes.items():
        files.move(path, f"{change.home}/{name}")


def fresh_folder(files: Files, folder: str) -> None:
    try:
        files.make_folder(folder)
    except Exists:  # left by a crash between steps 1 and 3
        files.remove_tree(folder)
        files.make_folder(folder)


def _written(change: Change) -> list[str]:
    return [f"{change.home}/{name}" for name in change.writes] + [change.home]


def _touched(change: Change) -> set[State]:
    return {state for state in (change.origin, change.target) if state is not None}


def _rename(files: Files, change: Change) -> None:
    if change.target is not None and change.home != change.end:
        files.move(change.home, change.end)

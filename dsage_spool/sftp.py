"""The files of a spool on another machine, over SFTP version 3 as OpenSSH speaks it.

The same contract as `files.LocalFiles`. Each operation is a small conversation (see `pipeline`), so
`many` costs about as many round trips as one. Round trips: stat, link, move, remove, resize, sync
of a known folder, `read_from` on an open file, now: 1; write: 2; drop, read, append: 3.

`drop` renames only after every write, flush and close was confirmed: sent together, the rename
would be executed although the disk was full. Files are looked at before they are opened, since
opening a pipe would block the server and opening a link would follow it; a name that is swapped in
between escapes this, so what is read stays hostile. Not thread-safe: a session belongs to the
thread that first uses it, and to the process that made it.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Callable, Iterable, Sequence

from .conversations import Conversations
from .errors import SpoolError, UsageError
from .files import Files, Stat
from .pipeline import Conversation, Pipeline, Stream


class SftpFiles(Files):
    """Files below `root` on the host behind `stream`.

    `root` is absolute, relative to the login folder, or `~/x`. `timeout` in seconds is the longest
    silence of the server that is borne. `on_close` is called once.
    Raises Unreachable or BadFormat if no SFTP server answers.
    """

    def __init__(
        self,
        stream: Stream,
        root: str = "",
        *,
        timeout: float = 30.0,
        name: str = "sftp",
        on_close: Callable[[], None] | None = None,
    ) -> None:
        stream.settimeout(timeout)
        self.root = plain_root(root)
        self._on_close = on_close
        self._pipeline = Pipeline(stream, name)
        self._talk = Conversations(self._pipeline, self.root)
        self.durable = self._talk.durable
        self._process, self._thread = os.getpid(), 0

    def __repr__(self) -> str:
        return f"SftpFiles({self.root!r})"

    # -- the interface ------------------------------------------------------------------------

    def names(self, folder: str, limit: int | None = None) -> list[str]:
        return self._one(self._talk.names(folder, limit))

    def stat(self, path: str) -> Stat:
        """`mtime` is in whole seconds; `inode` and `links` cannot be seen."""
        return self._one(self._talk.stat(path))

    def read(self, path: str, limit: int) -> bytes:
        return self._one(self._talk.read(path, limit))

    def read_from(self, path: str, offset: int, limit: int) -> bytes:
        """Keeps the last few files open. One that was replaced is noticed by its size or time."""
        return self._one(self._talk.read_from(path, offset, limit))

    def write(self, path: str, data: bytes) -> None:
        self._one(self._talk.write(path, data))

    def append(self, path: str, data: bytes) -> None:
        self._one(self._talk.append(path, data))

    def drop(self, tmp: str, path: str, data: bytes) -> None:
        self._one(self._talk.drop(tmp, path, data))

    def resize(self, path: str, size: int) -> None:
        self._one(self._talk.resize(path, size))

    def link(self, source: str, path: str) -> None:
        """Refused where the server offers no hard links: nothing else is exclusive and whole."""
        self._one(self._talk.link(source, path))

    def move(self, source: str, path: str) -> None:
        self._one(self._talk.move(source, path))

    def make_folder(self, path: str) -> None:
        self._one(self._talk.make_folder(path))

    def remove(self, path: str) -> None:
        self._one(self._talk.remove(path))

    def sync(self, paths: Sequence[str]) -> None:
        """Does nothing where the server cannot flush: see `durable`."""
        self._one(self._talk.sync(paths))

    def now(self) -> float:
        """The stamp of a file made for it in `tmp/`: whole seconds, so up to one behind."""
        return self._one(self._talk.now())

    def many(self, operation: str, rows: Iterable[tuple]) -> list[Any]:
        """Rows overlap in time: none may depend on another. Once cut off: Unreachable for each."""
        step = getattr(self._talk, operation)
        return self._run(step(*row) for row in rows)

    def on_close(self, done: Callable[[], None]) -> None:
        """Have `done` called once, after this session is closed."""
        self._on_close = done

    def close(self) -> None:
        self._pipeline.fail("closed")
        done, self._on_close = self._on_close, None
        if done:
            done()

    # -- running ------------------------------------------------------------------------------

    def _run(self, works: Iterable[Conversation]) -> list[Any]:
        here = threading.get_ident()
        self._thread = self._thread or here
        if here != self._thread or os.getpid() != self._process:
            hint = "open one session for each thread, after any fork: `connection.files()`"
            raise UsageError("sftp session: used by another thread or process", hint)
        return self._pipeline.run(works)

    def _one(self, work: Conversation) -> Any:
        (outcome,) = self._run([work])
        if isinstance(outcome, SpoolError):
            raise outcome
        return outcome


def plain_root(root: str) -> str:
    """The folder as the server understands it: `~` is where a session begins."""
    if root == "~" or root.startswith("~/"):
        return root[2:].lstrip("/")
    if root.startswith("~"):
        raise UsageError(f"folder {root!r}: another user's home", "name it by its full path")
    return root

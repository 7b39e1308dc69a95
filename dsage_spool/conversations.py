"""What each file operation says to an SFTP server and makes of its replies.

A method is a conversation (see `pipeline`): the operation of `files.Files` of the same name, which
returns its answer or raises its error. Relies on a server that works in order, as OpenSSH's does.
"""

from __future__ import annotations

import errno
import secrets
import stat as statmodes
from collections import OrderedDict
from typing import Any, NamedTuple, Sequence

from . import wire
from .errors import (
    BadFormat,
    DiskError,
    Gone,
    NotRegular,
    Refused,
    SpoolError,
    TooBig,
    Unreachable,
)
from .files import Stat, answer_to, kind_of
from .pipeline import Conversation, Pipeline
from .text import clean
from .wire import CHUNK, Attrs, Data, Handle, Names, Status

_CODES = {
    wire.NO_SUCH_FILE: errno.ENOENT,
    wire.PERMISSION_DENIED: errno.EACCES,
    wire.BAD_MESSAGE: errno.ENAMETOOLONG,  # so OpenSSH translates it
}
FOLLOWED = 8
READ_AHEAD = 32


class _Followed(NamedTuple):
    handle: bytes
    seen: Attrs


class Conversations:
    """The conversations of one session about the files below `root`."""

    def __init__(self, pipeline: Pipeline, root: str) -> None:
        self._pipeline, self._offers, self.root = pipeline, pipeline.offers, root
        self.durable = wire.FSYNC in self._offers
        self._folders: dict[str, bytes] = {}
        self._followed: OrderedDict[str, _Followed] = OrderedDict()

    def _at(self, path: str) -> str:
        if not path:
            return self.root or "."
        return f"{self.root.rstrip('/')}/{path}" if self.root else path

    def _forget(self, handle: bytes) -> None:
        self._pipeline.forget(wire.close(handle))

    # -- answers that are not OK --------------------------------------------------------------

    def _done(self, reply: Any, path: str, taken: int = 0, needed: int = 0) -> Conversation:
        if not (type(reply) is Status and reply.code == wire.OK):
            raise (yield from self._why(reply, path, taken, needed))

    def _why(self, reply: Any, path: str, taken: int = 0, needed: int = 0) -> Conversation:
        """The error for a reply. `taken`: errno if the name exists; `needed`: space in bytes."""
        if type(reply) is not Status or reply.code in (wire.OK, wire.EOF):
            return BadFormat(f"{path}: the server's answer makes no sense")
        if reply.code != wire.FAILURE:
            return _plain_error(reply, path)
        # Version 3 has one word for every other cause: look which it was.
        offered = wire.STATVFS in self._offers
        looks = [wire.lstat(self._at(path))] + [wire.statvfs(self._at(""))] * offered
        seen, *space = yield looks
        cause = _cause(seen, taken) or (errno.ENOSPC if space and _full(space[0], needed) else 0)
        if cause:
            return answer_to(OSError(cause, ""), path)
        text = clean(reply.message) or "failure"
        return DiskError(f"{path}: {text}", "look at the disk of the host: `dmesg`, `df`")

    # -- conversations of one step ------------------------------------------------------------

    def look(self, path: str) -> Conversation:
        (reply,) = yield [wire.lstat(self._at(path))]
        if type(reply) is not Attrs:
            raise (yield from self._why(reply, path))
        return reply

    def stat(self, path: str) -> Conversation:
        seen = yield from self.look(path)
        return Stat(kind_of(seen.mode), seen.size, float(seen.mtime))

    def resize(self, path: str, size: int) -> Conversation:
        (reply,) = yield [wire.set_size(self._at(path), size)]
        yield from self._done(reply, path)

    def make_folder(self, path: str) -> Conversation:
        (reply,) = yield [wire.make_folder(self._at(path))]
        yield from self._done(reply, path, taken=errno.EEXIST)

    def remove(self, path: str) -> Conversation:
        (reply,) = yield [wire.remove(self._at(path))]
        yield from self._done(reply, path)

    def link(self, source: str, path: str) -> Conversation:
        if wire.HARDLINK not in self._offers:
            hint = "a worker needs OpenSSH's sftp-server, with `hardlink` not denied by `-P`"
            raise Refused(f"{path}: the server offers no hard links", hint)
        request = wire.hardlink(self._at(source), self._at(path))
        (reply,) = yield [request]
        try:
            yield from self._done(reply, path, taken=errno.EEXIST)
        except DiskError:
            # Taken when we tried and free when we looked: once more decides it.
            (reply,) = yield [request]
            yield from self._done(reply, path, taken=errno.EEXIST)

    def move(self, source: str, path: str) -> Conversation:
        replaces = wire.POSIX_RENAME in self._offers
        rename = wire.posix_rename if replaces else wire.rename
        (reply,) = yield [rename(self._at(source), self._at(path))]
        if type(reply) is Status and reply.code == wire.FAILURE:
            moved, there = yield [wire.lstat(self._at(source)), wire.lstat(self._at(path))]
            if _is_folder(there):
                cause = errno.EEXIST if _is_folder(moved) else errno.EISDIR
                raise answer_to(OSError(cause, ""), path)
            if type(there) is Attrs and not replaces:
                raise Refused(f"{path}: the server cannot replace a file", "it must be OpenSSH's")
        yield from self._done(reply, source)

    def now(self) -> Conversation:
        path = f"tmp/now.{secrets.token_hex(8)}"
        at = self._at(path)
        flags = wire.FOR_WRITE | wire.CREATE | wire.EXCLUSIVE
        opened, seen, _ = yield [wire.open_file(at, flags), wire.lstat(at), wire.remove(at)]
        if type(opened) is not Handle:
            raise (yield from self._why(opened, path))
        self._forget(opened.handle)
        if type(seen) is not Attrs:
            raise (yield from self._why(seen, path))
        return float(seen.mtime)

    # -- folders ------------------------------------------------------------------------------

    def names(self, folder: str, limit: int | None = None) -> Conversation:
        (reply,) = yield [wire.open_folder(self._at(folder))]
        if type(reply) is not Handle:
            raise (yield from self._why(reply, folder))
        found: list[str] = []
        ahead, more = 2, limit is None or limit > 0
        while more:
            pages = yield [wire.read_folder(reply.handle)] * ahead
            ended = yield from self._collect(pages, found, folder)
            more = not ended and (limit is None or len(found) < limit)
            ahead = min(2 * ahead, READ_AHEAD)
        self._forget(reply.handle)
        return found[:limit]

    def _collect(self, pages: list, found: list[str], folder: str) -> Conversation:
        for page in pages:
            if type(page) is Names:
                # A name with a slash is no name: a hostile server points elsewhere.
                found += [name for name in page.names if name[:1] != "." and "/" not in name]
            elif type(page) is Status and page.code == wire.EOF:
                return True
            else:
                raise (yield from self._why(page, folder))
        return False

    def sync(self, paths: Sequence[str]) -> Conversation:
        paths = list(dict.fromkeys(paths)) if self.durable else []
        fresh = [path for path in paths if path not in self._folders]
        handles = dict(self._folders)
        if fresh:
            opened = yield [wire.open_file(self._at(path), wire.FOR_READ) for path in fresh]
            handles.update((p, o.handle) for p, o in zip(fresh, opened) if type(o) is Handle)
        ready = [path for path in paths if path in handles]
        replies: list = []
        if ready:
            flushes = [wire.fsync(handles[path]) for path in ready]
            looks = [wire.fstat(handles[path]) for path in fresh if path in handles]
            replies = yield flushes + looks
        self._keep_folders([p for p in fresh if p in handles], handles, replies[len(ready) :])
        for path, reply in zip(ready, replies):
            yield from self._done(reply, path)
        for path in fresh:
            if path not in handles:
                raise (yield from self._why(opened[fresh.index(path)], path))

    def _keep_folders(self, fresh: list[str], handles: dict[str, bytes], seen: list) -> None:
        """Keep the fixed folders of the spool open. Others may be moved, and their name reused."""
        for path, attrs in zip(fresh, seen):
            if _is_folder(attrs) and "/" not in path and path not in self._folders:
                self._folders[path] = handles[path]
            else:
                self._forget(handles[path])

    # -- reading ------------------------------------------------------------------------------

    def _look_regular(self, path: str) -> Conversation:
        seen = yield from self.look(path)
        if not statmodes.S_ISREG(seen.mode):
            raise NotRegular(f"{path}: is not a regular file")
        return seen

    def _open(self, path: str, flags: int) -> Conversation:
        (reply,) = yield [wire.open_file(self._at(path), flags)]
        if type(reply) is not Handle:
            raise (yield from self._why(reply, path))
        return reply.handle

    def read(self, path: str, limit: int) -> Conversation:
        seen = yield from self._look_regular(path)
        if seen.size > limit:
            raise TooBig(f"{path}: larger than {limit} bytes")
        handle = yield from self._open(path, wire.FOR_READ)
        # One byte more than it held, to see the end; on from there if it has grown.
        data, wanted = b"", seen.size + 1
        try:
            while len(data) < wanted:
                replies = yield _pieces(handle, len(data), wanted - len(data))
                more, ended = yield from self._joined(replies, path)
                data += more
                wanted = len(data) if ended else min(2 * len(data), limit + 1)
        finally:
            self._forget(handle)
        if len(data) > limit:
            raise TooBig(f"{path}: larger than {limit} bytes")
        return data

    def _joined(self, replies: list, path: str) -> Conversation:
        """The data of consecutive whole-chunk reads, and whether the end of the file was met."""
        parts = []
        for reply in replies:
            if type(reply) is Status and reply.code == wire.EOF:
                return b"".join(parts), True
            if type(reply) is not Data:
                raise (yield from self._why(reply, path))
            parts.append(reply.data)
            if len(reply.data) < CHUNK:
                # The draft, 6.4: of an ordinary file a short read is one that met the end.
                return b"".join(parts), True
        return b"".join(parts), False

    def read_from(self, path: str, offset: int, limit: int) -> Conversation:
        kept = self._followed.get(path)
        if kept:
            data = yield from self._read_followed(kept, path, offset, limit)
            if data is not None:
                return data
        seen = yield from self._look_regular(path)
        handle = yield from self._open(path, wire.FOR_READ)
        self._follow(path, _Followed(handle, seen))
        replies = yield _pieces(handle, offset, limit)
        data, _ = yield from self._joined(replies, path)
        return data[:limit]

    def _read_followed(
        self, kept: _Followed, path: str, offset: int, limit: int
    ) -> Conversation:
        """The data, or None if the name has another file by now."""
        pieces = _pieces(kept.handle, offset, limit)
        *replies, seen = yield pieces + [wire.lstat(self._at(path))]
        data = None
        if type(seen) is Attrs:
            data, _ = yield from self._joined(replies, path)
            data = data[:limit]
        if data is None or not _same_file(kept.seen, seen, offset, data, limit):
            self._unfollow(path)
            return None
        self._followed[path] = _Followed(kept.handle, seen)
        self._followed.move_to_end(path)
        return data

    def _follow(self, path: str, followed: _Followed) -> None:
        self._unfollow(path)
        self._followed[path] = followed
        if len(self._followed) > FOLLOWED:
            self._unfollow(next(iter(self._followed)))

    def _unfollow(self, path: str) -> None:
        old = self._followed.pop(path, None)
        if old:
            self._forget(old.handle)

    # -- writing ------------------------------------------------------------------------------

    def write(self, path: str, data: bytes, flush: bool = False) -> Conversation:
        # To create exclusively never follows a link; only an old file costs a look more.
        new = wire.FOR_WRITE | wire.CREATE | wire.EXCLUSIVE
        (reply,) = yield [wire.open_file(self._at(path), new)]
        if type(reply) is Status and reply.code == wire.FAILURE:
            (seen,) = yield [wire.lstat(self._at(path))]
            if type(seen) is Attrs and statmodes.S_ISREG(seen.mode):
                old = wire.FOR_WRITE | wire.CREATE | wire.TRUNCATE
                (reply,) = yield [wire.open_file(self._at(path), old)]
        if type(reply) is not Handle:
            raise (yield from self._why(reply, path, needed=len(data)))
        yield from self._pour(reply.handle, path, data, flush)

    def append(self, path: str, data: bytes) -> Conversation:
        try:
            yield from self._look_regular(path)
        except Gone:
            pass
        handle = yield from self._open(path, wire.FOR_WRITE | wire.CREATE | wire.AT_END)
        yield from self._pour(handle, path, data, False)

    def _pour(self, handle: bytes, path: str, data: bytes, flush: bool) -> Conversation:
        requests = [
            wire.write(handle, at, data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)
        ]
        requests += [wire.fsync(handle)] * flush + [wire.close(handle)]
        for reply in (yield requests):
            yield from self._done(reply, path, needed=len(data))

    def drop(self, tmp: str, path: str, data: bytes) -> Conversation:
        yield from self.write(tmp, data, flush=self.durable)
        yield from self.move(tmp, path)


def _pieces(handle: bytes, offset: int, length: int) -> list[wire.Request]:
    # Whole chunks always: only then does a short answer tell the end.
    return [wire.read(handle, at, CHUNK) for at in range(offset, offset + max(length, 1), CHUNK)]


def _is_folder(seen: Any) -> bool:
    return type(seen) is Attrs and statmodes.S_ISDIR(seen.mode)


def _same_file(before: Attrs, now: Attrs, offset: int, data: bytes, limit: int) -> bool:
    """Whether the file read is the one that has the name, if files of that name only grow."""
    if now.size < before.size or (now.size == before.size and now.mtime != before.mtime):
        return False
    end = offset + len(data)
    if not data:
        return now.size <= offset
    return now.size >= end if len(data) == limit else now.size == end


def _cause(seen: Any, taken: int) -> int:
    """The errno that a look at the name explains; 0 for none."""
    if type(seen) is not Attrs:
        return 0
    if taken:
        return taken
    if statmodes.S_ISREG(seen.mode):
        return 0
    if statmodes.S_ISDIR(seen.mode):
        return errno.EISDIR
    return errno.ELOOP if statmodes.S_ISLNK(seen.mode) else errno.ENXIO


def _full(reply: Any, needed: int) -> bool:
    if type(reply) is not wire.Extended:
        return False
    space = wire.parse_space(reply.body)
    return space.free < max(needed, 1) or not space.has_inodes


def _plain_error(reply: Status, path: str) -> SpoolError:
    if reply.code in _CODES:
        return answer_to(OSError(_CODES[reply.code], ""), path)
    text = clean(reply.message) or f"status {reply.code}"
    if reply.code == wire.OP_UNSUPPORTED:
        return Refused(f"{path}: the server does not do this: {text}", "it must be OpenSSH's")
    if reply.code in (wire.NO_CONNECTION, wire.CONNECTION_LOST):
        return Unreachable(f"{path}: the server lost its connection: {text}")
    return DiskError(f"{path}: {text}", "look at the disk of the host: `dmesg`, `df`")

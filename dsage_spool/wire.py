"""The bytes of SFTP version 3: requests to send, replies to read. No I/O.

After draft-ietf-secsh-filexfer-02 and the file PROTOCOL of OpenSSH (its `@openssh.com` extensions).
A request is a pair (packet type, body without the id); `frame` gives it an id and a length. Where
the draft and OpenSSH differ, OpenSSH is followed. Whatever a server sends, reading it answers or
raises BadFormat, and holds no more than `LIMIT` bytes of one packet.
"""

from __future__ import annotations

import struct
from typing import Iterator, NamedTuple, Union

from .errors import BadFormat

Request = tuple[int, bytes]

# OpenSSH takes and sends packets up to 256 KiB; a little more is allowed for, nothing beyond.
LIMIT = 256 * 1024 + 1024
# The draft obliges every server to take this much data in one packet, and to read as much.
CHUNK = 32 * 1024

INIT, VERSION = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT = 3, 4, 5, 6, 7, 8, 9
OPENDIR, READDIR, REMOVE, MKDIR, RENAME = 11, 12, 13, 14, 18
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED, EXTENDED_REPLY = 101, 102, 103, 104, 105, 200, 201

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = 0, 1, 2, 3, 4, 5
NO_CONNECTION, CONNECTION_LOST, OP_UNSUPPORTED = 6, 7, 8

FOR_READ, FOR_WRITE, AT_END, CREATE, TRUNCATE, EXCLUSIVE = 1, 2, 4, 8, 16, 32

HARDLINK = "hardlink@openssh.com"
POSIX_RENAME = "posix-rename@openssh.com"
FSYNC = "fsync@openssh.com"
STATVFS = "statvfs@openssh.com"

_ATTR_SIZE, _ATTR_OWNER, _ATTR_MODE, _ATTR_TIMES, _ATTR_EXTENDED = 1, 2, 4, 8, 0x80000000
_NO_ATTRS = b"\0\0\0\0"

_u32 = struct.Struct(">I")
_u64 = struct.Struct(">Q")
_head = struct.Struct(">IBI")
_11_u64 = struct.Struct(">11Q")


class Status(NamedTuple):
    code: int
    message: str = ""


class Handle(NamedTuple):
    handle: bytes


class Data(NamedTuple):
    data: bytes


class Attrs(NamedTuple):
    """Attributes; 0 where the server sent none. Times in whole seconds since 1970."""

    size: int = 0
    mode: int = 0
    mtime: int = 0


class Names(NamedTuple):
    names: list[str]


class Extended(NamedTuple):
    body: bytes


Reply = Union[Status, Handle, Data, Attrs, Names, Extended]


# -- requests ---------------------------------------------------------------------------------


def path_bytes(path: str) -> bytes:
    """UTF-8, undecodable bytes kept. BadFormat for what cannot be a path: a NUL ends a C string."""
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadFormat(f"path {path!r}: is not text") from error
    if b"\0" in raw:
        raise BadFormat(f"path {path!r}: holds a NUL character")
    return raw


def _string(raw: bytes) -> bytes:
    return _u32.pack(len(raw)) + raw


def _path(path: str) -> bytes:
    return _string(path_bytes(path))


def frame(number: int, request: Request) -> bytes:
    """The packet that carries a request under this id (0 to 2^32-1)."""
    kind, body = request
    return _head.pack(5 + len(body), kind, number) + body


def hello() -> bytes:
    """The first packet of a session: we speak version 3."""
    return _head.pack(5, INIT, 3)


def open_file(path: str, flags: int) -> Request:
    return OPEN, _path(path) + _u32.pack(flags) + _NO_ATTRS


def close(handle: bytes) -> Request:
    return CLOSE, _string(handle)


def read(handle: bytes, offset: int, length: int) -> Request:
    return READ, _string(handle) + _u64.pack(offset) + _u32.pack(length)


def write(handle: bytes, offset: int, data: bytes) -> Request:
    return WRITE, b"".join((_string(handle), _u64.pack(offset), _u32.pack(len(data)), data))


def lstat(path: str) -> Request:
    return LSTAT, _path(path)


def fstat(handle: bytes) -> Request:
    return FSTAT, _string(handle)


def set_size(path: str, size: int) -> Request:
    return SETSTAT, _path(path) + _u32.pack(_ATTR_SIZE) + _u64.pack(size)


def open_folder(path: str) -> Request:
    return OPENDIR, _path(path)


def read_folder(handle: bytes) -> Request:
    return READDIR, _string(handle)


def remove(path: str) -> Request:
    return REMOVE, _path(path)


def make_folder(path: str) -> Request:
    return MKDIR, _path(path) + _NO_ATTRS


def rename(source: str, path: str) -> Request:
    """Version 3's own rename: fails if `path` exists."""
    return RENAME, _path(source) + _path(path)


def posix_rename(source: str, path: str) -> Request:
    return EXTENDED, _string(POSIX_RENAME.encode()) + _path(source) + _path(path)


def hardlink(source: str, path: str) -> Request:
    return EXTENDED, _string(HARDLINK.encode()) + _path(source) + _path(path)


def fsync(handle: bytes) -> Request:
    return EXTENDED, _string(FSYNC.encode()) + _string(handle)


def statvfs(path: str) -> Request:
    return EXTENDED, _string(STATVFS.encode()) + _path(path)


# -- replies ----------------------------------------------------------------------------------


class Splitter:
    """Cuts a stream of bytes into packets (without their length), as they become whole."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The packets that are whole with these bytes; to be used up before the next call.

        BadFormat at a packet without a type or above the limit: what follows cannot be found again.
        """
        self._rest += data
        at = 0
        try:
            while len(self._rest) - at >= 4:
                (length,) = _u32.unpack_from(self._rest, at)
                if not 1 <= length <= self._limit:
                    raise BadFormat(f"sftp packet: {length} bytes announced")
                if len(self._rest) - at - 4 < length:
                    break
                at += 4 + length
                yield bytes(self._rest[at - length : at])
        finally:
            del self._rest[:at]


class _Cursor:
    """Reads fields one after another; struct.error or BadFormat where they run out."""

    __slots__ = ("raw", "at")

    def __init__(self, raw: bytes, at: int) -> None:
        self.raw, self.at = raw, at

    def u32(self) -> int:
        (number,) = _u32.unpack_from(self.raw, self.at)
        self.at += 4
        return number

    def u64(self) -> int:
        (number,) = _u64.unpack_from(self.raw, self.at)
        self.at += 8
        return number

    def string(self) -> bytes:
        start = self.at + 4
        end = start + self.u32()
        if end > len(self.raw):
            raise BadFormat("sftp packet: ends inside a string")
        self.at = end
        return self.raw[start:end]

    def left(self) -> int:
        return len(self.raw) - self.at


def parse(packet: bytes) -> tuple[int, Reply]:
    """The id and the reply in a packet; BadFormat if it is not a reply of SFTP version 3."""
    reader = _READERS.get(packet[0]) if packet else None
    if reader is None:
        raise BadFormat(f"sftp packet: unknown reply {packet[:1].hex() or 'without a type'}")
    try:
        (number,) = _u32.unpack_from(packet, 1)
        return number, reader(_Cursor(packet, 5))
    except struct.error as error:
        raise BadFormat("sftp packet: ends inside a number") from error


def parse_version(packet: bytes) -> tuple[int, dict[str, str]]:
    """The server's version and its extensions (name: their version) from its first packet."""
    if packet[:1] != bytes([VERSION]):
        raise BadFormat("sftp session: does not begin with a version")
    cursor = _Cursor(packet, 1)
    try:
        version, offers = cursor.u32(), {}
        while cursor.left() > 0:
            name, value = cursor.string(), cursor.string()
            offers[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    except struct.error as error:
        raise BadFormat("sftp session: the version packet ends too early") from error
    return version, offers


def _read_status(cursor: _Cursor) -> Status:
    code = cursor.u32()
    # Servers older than version 3 send no text.
    message = cursor.string() if cursor.left() >= 4 else b""
    return Status(code, message.decode("utf-8", "replace"))


def _read_attrs(cursor: _Cursor) -> Attrs:
    flags = cursor.u32()
    size = cursor.u64() if flags & _ATTR_SIZE else 0
    if flags & _ATTR_OWNER:
        cursor.at += 8
    mode = cursor.u32() if flags & _ATTR_MODE else 0
    mtime = 0
    if flags & _ATTR_TIMES:
        cursor.at += 4
        mtime = cursor.u32()
    if flags & _ATTR_EXTENDED:
        for _ in range(cursor.u32()):
            cursor.string(), cursor.string()
    if cursor.left() < 0:
        raise BadFormat("sftp packet: ends inside attributes")
    return Attrs(size, mode, mtime)


def _read_names(cursor: _Cursor) -> Names:
    names = []
    for _ in range(cursor.u32()):
        names.append(cursor.string().decode("utf-8", "surrogateescape"))
        cursor.string()  # the line `ls -l` would show
        _read_attrs(cursor)
    return Names(names)


_READERS = {
    STATUS: _read_status,
    HANDLE: lambda cursor: Handle(cursor.string()),
    DATA: lambda cursor: Data(cursor.string()),
    NAME: _read_names,
    ATTRS: _read_attrs,
    EXTENDED_REPLY: lambda cursor: Extended(cursor.raw[5:]),
}


class Space(NamedTuple):
    """What is left on a file system: bytes and inodes for ordinary users."""

    free: int
    has_inodes: bool


def parse_space(body: bytes) -> Space:
    """Reads the reply to `statvfs`. A file system that counts no inodes has them."""
    try:
        _, fragment, _, _, free, inodes, _, free_inodes, *_ = _11_u64.unpack(body)
    except struct.error as error:
        raise BadFormat("sftp packet: statvfs reply of a wrong length") from error
    return Space(free * fragment, free_inodes > 0 or inodes == 0)

"""Several named parts in one file, so that one atomic step puts all of them in place.

    dsage-spool-pack: 1
    part: envelope 512
    part: payload 1024
    <empty line>
    <the bytes of the parts, one after another>

A pack is complete or refused: the sizes must account for every byte. Part names are few, fixed by
the caller; text parts can be read in the file by eye. Raises BadFormat, BadVersion.
"""

from __future__ import annotations

import re
from typing import Mapping

from .errors import BadFormat, BadVersion

_FIRST = b"dsage-spool-pack: "
_PART = re.compile(rb"part: ([a-z][a-z.]{0,30}) ([0-9]{1,15})")
_HEAD_LIMIT = 4096


def join(parts: Mapping[str, bytes]) -> bytes:
    """The bytes of a pack."""
    head = [b"dsage-spool-pack: 1"]
    head += [b"part: %s %d" % (name.encode(), len(data)) for name, data in parts.items()]
    return b"\n".join(head) + b"\n\n" + b"".join(parts.values())


def split(data: bytes, allowed: frozenset[str]) -> dict[str, bytes]:
    """The parts of a pack, whose names must be in `allowed`, each at most once."""
    end = data.find(b"\n\n", 0, _HEAD_LIMIT)
    if not data.startswith(_FIRST) or end < 0:
        raise BadFormat("not a pack of dsage-spool: its first line or its head is missing")
    lines = data[:end].split(b"\n")
    if lines[0] != _FIRST + b"1":
        raise BadVersion("a pack of another version: this release reads version 1")
    return _cut(data, end + 2, [_parse_part(line, allowed) for line in lines[1:]])


def _parse_part(line: bytes, allowed: frozenset[str]) -> tuple[str, int]:
    found = _PART.fullmatch(line)
    if not found:
        raise BadFormat("a line of the pack's head is not `part: name size`")
    name = found[1].decode()
    if name not in allowed:
        raise BadFormat(f"a part named {name} has no place in this pack")
    return name, int(found[2])


def _cut(data: bytes, start: int, sizes: list[tuple[str, int]]) -> dict[str, bytes]:
    if len({name for name, _ in sizes}) != len(sizes):
        raise BadFormat("a part is named twice in the pack")
    if start + sum(size for _, size in sizes) != len(data):
        raise BadFormat("the sizes of the pack's parts do not add up: it is truncated or padded")
    parts = {}
    for name, size in sizes:
        parts[name] = data[start : start + size]
        start += size
    return parts

"""Bring files and folders to stable storage, many at the cost of about one.

A file needs `fsync` and so does each folder in which a name changed: without the second, names that
were acknowledged are lost at power failure. Above a few paths one `syncfs` (Linux) is cheaper than
an `fsync` for each; elsewhere each path is flushed by itself. Raises OSError: never retry a failed
flush on the same data, since the kernel may have dropped it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Sequence

# One syncfs costs about as much as this many fsync calls on ext4; measured by benchmarks/flush.py.
GROUP = 6


def flush(paths: Sequence[str]) -> None:
    """Make the named files and folders durable; all lie on one file system."""
    if len(paths) > GROUP and _syncfs is not None:
        _flush_file_system(paths[0])
        return
    for path in paths:
        _flush_one(path)


def flush_all(folder: str) -> None:
    """Make durable whatever was written on the file system of `folder`, by whomever."""
    if _syncfs is not None:
        _flush_file_system(folder)
    elif hasattr(os, "sync"):
        os.sync()  # Windows has nothing of the kind


def _flush_one(path: str) -> None:
    if sys.platform == "win32" and os.path.isdir(path):
        return  # Windows has no handle on a folder to flush
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_file_system(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        if _syncfs(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(handle)


def _find_syncfs():
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


_syncfs = _find_syncfs()

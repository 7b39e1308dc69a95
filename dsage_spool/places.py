"""Open the files of a spool wherever it is: a path on this machine, or an address on another.

SSH is imported only for an address, so that a local command does not pay for it.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from .address import parse_address
from .files import Files, LocalFiles


def open_files(spec: str, **options: Any) -> Files:
    """The files at `spec`; `close()` them, which also ends the connection.

    `options` are those of `ssh_config.Config`, such as `timeout` in seconds; a path ignores them.
    Raises UsageError for an address that is none, Refused or Unreachable as `Connection.connect`.
    """
    address = parse_address(spec)
    if address is None:
        return LocalFiles(os.path.expanduser(spec))
    from .ssh import Config, Connection

    connection = Connection.connect(address, config=Config(**options))
    try:
        files = connection.files()
    except BaseException:
        connection.close()
        raise
    files.on_close(connection.close)
    return files


class Place:
    """A spool that a worker comes back to: one connection, as many sessions on it as are asked for.

    `connect` opens a session; while the connection lives it is shared, else a new one is made.
    """

    def __init__(self, spec: str, **options: Any) -> None:
        self._address = parse_address(spec)
        self._spec = spec
        self._options = options
        self._connection: Any = None
        self._guard = threading.Lock()

    @property
    def local(self) -> bool:
        return self._address is None

    @property
    def path(self) -> str:
        """The folder, for a spool on this machine."""
        return os.path.abspath(os.path.expanduser(self._spec))

    def connect(self) -> Files:
        """A session for one thread; Refused or Unreachable."""
        if self._address is None:
            return LocalFiles(self.path)
        from .ssh import Config, Connection

        with self._guard:
            if self._connection is None or not self._connection.alive:
                self.close()
                self._connection = Connection.connect(
                    self._address, config=Config(**self._options)
                )
            connection = self._connection
        return connection.files()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

"""The door to watchdog: wake up early when a folder changes. Events are hints and may be lost.

The kernel drops events when its queue overflows (13,616 of 30,000 were lost), so whoever waits here
must look again by itself after a while. Where watching cannot be had, waiting is all there is.
"""

from __future__ import annotations

import logging
from queue import Empty, SimpleQueue
from typing import Sequence

# It tells on stderr that it stops.
logging.getLogger("watchdog").addHandler(logging.NullHandler())
logging.getLogger("watchdog").propagate = False


class Watch:
    """`wait` returns early after something was created in, or moved into, one of the folders.

    With `events=False` it asks for none, as if there were none to be had.
    """

    def __init__(self, folders: Sequence[str], events: bool = True) -> None:
        # Its `put` may come from a signal handler at any moment of `get`; Event.set would deadlock.
        self._changes: SimpleQueue[None] = SimpleQueue()
        self._observer = None
        self.problem = ""
        try:
            self._observer = self._start(folders) if events else None
        except OSError as error:
            # 128 inotify instances a user is a usual limit.
            self.problem = f"cannot watch folders, looking every moment instead: {error}"

    def _start(self, folders: Sequence[str]):
        from watchdog.events import DirCreatedEvent, FileCreatedEvent, FileMovedEvent
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer

        changes = self._changes

        class Waker(FileSystemEventHandler):
            def dispatch(self, event) -> None:
                if changes.empty():  # one is as good as a million, which would have to be kept
                    changes.put(None)

        observer = Observer()
        kinds = [FileCreatedEvent, FileMovedEvent, DirCreatedEvent]
        for folder in folders:
            observer.schedule(Waker(), folder, recursive=False, event_filter=kinds)
        observer.start()
        return observer

    def wait(self, timeout: float) -> None:
        if self._observer is None:
            timeout = min(timeout, 0.1)
        try:
            self._changes.get(timeout=timeout)
            while True:
                self._changes.get_nowait()
        except Empty:
            pass

    def wake(self) -> None:
        """End a wait from another thread or a signal."""
        self._changes.put(None)

    def close(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)

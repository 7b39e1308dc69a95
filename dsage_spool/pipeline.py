"""Drive many small conversations over one SFTP session, many requests in flight.

A conversation is a generator: it yields a list of requests, which are sent together, and receives
the list of their replies; what it returns is its outcome, or the SpoolError it raises. Requests of
all conversations are joined into few `send` calls: the cost of a request is in the packet around
it. A server works on the requests of one session strictly in order (seen with OpenSSH; the draft
asks it only for requests on one file).

Unreachable ends everything: a stream that failed, was silent for longer than its timeout, or spoke
nonsense is closed and never used again; what was in flight may or may not have been done.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generator, Iterable, Iterator, Protocol

from . import wire
from .errors import BadFormat, SpoolError, Unreachable
from .text import clean

Conversation = Generator[list, list, Any]

WINDOW = 64
# Wait for replies until this few requests are in flight, so that the next ones go out together.
LOW = 32


class Stream(Protocol):
    """Bytes both ways. Failures are OSError or EOFError; `recv` answers b"" at the end."""

    def send(self, data: bytes) -> None:
        """Send all of it."""

    def recv(self, count: int) -> bytes: ...

    def settimeout(self, seconds: float) -> None: ...

    def close(self) -> None: ...


class _Task:
    __slots__ = ("work", "place", "replies", "missing")

    def __init__(self, work: Conversation, place: int) -> None:
        self.work, self.place = work, place
        self.replies: list = []
        self.missing = 0


class Pipeline:
    """One SFTP session. `offers` maps the server's extensions to their versions."""

    def __init__(self, stream: Stream, name: str = "sftp") -> None:
        self._stream, self._name = stream, name
        self._splitter = wire.Splitter()
        self._waiting: deque[tuple[_Task | None, int, wire.Request]] = deque()
        self._flying: dict[int, tuple[_Task | None, int]] = {}
        self._outcomes: list[Any] = []
        self._active = self._number = 0
        self.dead = ""
        self.offers = self._greet()

    def _greet(self) -> dict[str, str]:
        try:
            self._stream.send(wire.hello())
            packets: list[bytes] = []
            while not packets:
                packets = list(self._splitter.feed(self._recv()))
            _, offers = wire.parse_version(packets[0])
        except BadFormat as error:
            self.fail(str(error))
            hint = "a login script that prints? `ssh HOST true` must print nothing"
            raise BadFormat(f"{self._name}: does not speak SFTP", hint) from error
        except (OSError, EOFError) as error:
            raise self.fail(_reason(error)) from error
        return offers

    def run(self, works: Iterable[Conversation]) -> list[Any]:
        """The outcome of each conversation, in order; an Unreachable for each that was cut off."""
        self._outcomes = []
        source = iter(works)
        if not self.dead:
            try:
                self._drive(source)
            except (OSError, EOFError, BadFormat) as error:
                self.fail(_reason(error))
            except BaseException:
                # An interrupt or a bug in between leaves the session in an unknown state.
                self.fail("interrupted")
                raise
        if self.dead:
            self._outcomes += [_UNFINISHED for _ in source]
        return [self._lost() if end is _UNFINISHED else end for end in self._outcomes]

    def forget(self, request: wire.Request) -> None:
        """Send a request whose reply nobody waits for, such as the closing of a file read."""
        self._waiting.append((None, 0, request))

    def fail(self, reason: str) -> Unreachable:
        """Close the session for good; the error that says so."""
        if not self.dead:
            self.dead = reason
            self._waiting.clear()
            self._flying.clear()
            try:
                self._stream.close()
            except (OSError, EOFError):
                pass  # it is gone already, which is what we want
        return self._lost()

    def _lost(self) -> Unreachable:
        hint = "the last operation may or may not have taken place; connect again and look"
        return Unreachable(f"{self._name}: connection lost: {self.dead}", hint)

    def _drive(self, source: Iterator[Conversation]) -> None:
        self._active = 0
        while self._start(source) or self._active:
            self._send()
            self._receive()
        self._send()
        while self._waiting:  # only requests to be forgotten
            self._receive()
            self._send()

    def _start(self, source: Iterator[Conversation]) -> bool:
        """Begin as many conversations as there is room for; whether there may be more."""
        while len(self._waiting) + len(self._flying) < WINDOW:
            work = next(source, None)
            if work is None:
                return False
            self._outcomes.append(_UNFINISHED)
            self._active += 1
            self._step(_Task(work, len(self._outcomes) - 1), None)
        return True

    def _step(self, task: _Task, replies: list | None) -> None:
        try:
            requests = task.work.send(replies)  # type: ignore[arg-type]  # None begins it
        except StopIteration as end:
            self._finish(task, end.value)
        except SpoolError as error:
            self._finish(task, error)
        else:
            assert requests, "a conversation that asks nothing would never be answered"
            task.missing = len(requests)
            task.replies = [None] * task.missing
            self._waiting.extend((task, at, request) for at, request in enumerate(requests))

    def _finish(self, task: _Task, outcome: Any) -> None:
        self._outcomes[task.place] = outcome
        self._active -= 1

    def _send(self) -> None:
        if not self._waiting or len(self._flying) > LOW:
            return
        frames = []
        while self._waiting and len(self._flying) < WINDOW:
            task, at, request = self._waiting.popleft()
            self._number = (self._number + 1) & 0xFFFFFFFF
            self._flying[self._number] = (task, at)
            frames.append(wire.frame(self._number, request))
        self._stream.send(b"".join(frames))

    def _recv(self) -> bytes:
        data = self._stream.recv(1 << 18)
        if not data:
            raise EOFError("the other side closed it")
        return data

    def _receive(self) -> None:
        for packet in self._splitter.feed(self._recv()):
            number, reply = wire.parse(packet)
            task, at = self._flying.pop(number, _NOBODY)
            if at < 0:
                raise BadFormat("sftp packet: answers a request that was never sent")
            if task is None:
                continue
            task.replies[at] = reply
            task.missing -= 1
            if not task.missing:
                self._step(task, task.replies)


_UNFINISHED = object()
_NOBODY: tuple[None, int] = (None, -1)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return clean(str(error)) or type(error).__name__

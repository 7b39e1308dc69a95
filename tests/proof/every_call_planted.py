"""Bugs in the shipped code, planted by name, that a fault at a call must bring to light."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator
from unittest.mock import patch

from dsage_spool import durable, layout, queuefile
from dsage_spool.files import Files, LocalFiles
from dsage_spool.server.decide import Decider
from dsage_spool.server.serve import Server
from dsage_spool.spool import dropping
from dsage_spool.worker.deliver import Deliveries

from .every_call_stories import Submit


def _instead(owner: Any, name: str, bug: Callable) -> Callable[[], Any]:
    """`bug` is given the shipped function first."""
    shipped = getattr(owner, name)

    def planted(*arguments: Any) -> Any:
        return bug(shipped, *arguments)

    return lambda: patch.object(owner, name, planted)


def _write_in_place(shipped: Callable, files: LocalFiles, rows: list[tuple]) -> list[Any]:
    return Files.many(files, "write", [(path, data) for _, path, data in rows])


def _verdict_first(shipped: Callable, decider: Decider, *arguments: Any) -> Any:
    change = shipped(decider, *arguments)
    verdict = change.writes.pop(layout.VERDICT)
    change.writes = {layout.VERDICT: verdict, **change.writes}
    return change


def _put_away_first(shipped: Callable, server: Server, changes: list) -> None:
    server._put_away(changes)
    shipped(server, changes)


def _forget_first(shipped: Callable, deliveries: Deliveries, files: Files, run: str) -> None:
    some = deliveries._outbox.some()
    for job, attempt, _ in some:
        deliveries._outbox.remove(job, attempt)
    dropping.put(files, run, [dropping.result_drop(*one) for one in some])


def _queue_in_place(shipped: Callable, server: Server) -> None:
    wall = server._clock.wall()
    lines = [*server._head(wall), *server._owner_lines(wall), *server._job_lines(wall)]
    server._files.write(layout.QUEUE, queuefile.finish(lines))


def _deaf_to_errors(shipped: Callable, paths: Any) -> None:
    try:
        shipped(paths)
    except OSError:
        pass


@contextmanager
def _tell_first() -> Iterator[None]:
    """The client hears that its job is safe, and then it is sent."""
    late: list[tuple] = []
    put, ask = dropping.put, Submit.ask

    def put_later(*arguments: Any) -> list[None]:
        late.append(arguments)
        return [None] * len(arguments[2])

    def told_first(self: Submit, *arguments: Any) -> None:
        with patch.object(dropping, "put", put_later):
            ask(self, *arguments)
        while late:
            put(*late.pop())

    with patch.object(Submit, "ask", told_first):
        yield


PLANTED: dict[str, Callable[[], Any]] = {
    "drops are written in place": _instead(LocalFiles, "_drop_many", _write_in_place),
    "the client is told before": _tell_first,
    "the verdict is written first": _instead(Decider, "_end", _verdict_first),
    "drops are put away before the move": _instead(Server, "_carry_out", _put_away_first),
    "the outbox forgets before": _instead(Deliveries, "deliver", _forget_first),
    "the queue is written in place": _instead(Server, "_write_queue", _queue_in_place),
    "a flush that fails is passed over": _instead(durable, "flush", _deaf_to_errors),
}

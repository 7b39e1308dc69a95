"""The worker's loop where it must not hurry, and where it must not trust."""

from __future__ import annotations

from dsage_spool.children import Ended
from dsage_spool.errors import Unreachable
from dsage_spool.records import Worker
from dsage_spool.spool.settings import Settings
from dsage_spool.worker.deliver import Deliveries
from dsage_spool.worker.limits import Limits
from dsage_spool.worker.monitor import Monitor
from dsage_spool.worker.outbox import Outbox
from dsage_spool.worker.rosters import RosterFeed
from memory_files import MemoryFiles
from spool_world import WORKERS, FakeClock

JOB = "20261122T232140-4k2m7qx9ab"


class Idle:
    """Slots in which nothing runs; `waits` are the pauses that the worker has made."""

    slots = 1

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.rosters: list[bytes] = []

    def wait(self, timeout, extra_fds=()):
        self.waits.append(timeout)
        return []

    def set_roster(self, text: bytes) -> None:
        self.rosters.append(text)


def refused():
    raise Unreachable("box: no answer")


def test_a_worker_with_results_in_hand_does_not_spin_while_the_spool_is_away():
    clock, children = FakeClock(), Idle()
    deliveries = Deliveries(Outbox(MemoryFiles(clock.wall), print), WORKERS["kiwi"])
    worker = Worker("kiwi", "kiwi.00000000")
    deliveries.keep([(Ended(JOB, 1, "ok"), "0" * 64)], worker, Settings(id="somespool"))
    monitor = Monitor(
        refused, clock, lambda n: bytes(n), children, deliveries, worker, Limits(), lambda text: None
    )
    for _ in range(5):
        monitor.step()
    assert children.waits[1:] and min(children.waits[1:]) > 0.5


def test_a_roster_that_could_not_be_read_is_asked_for_again_at_once():
    class Flaky(MemoryFiles):
        fails = True

        def stat(self, path):
            if self.fails:
                refused()
            return super().stat(path)

    files, children = Flaky(lambda: 0.0), Idle()
    files.write("roster", b"# nobody\n")
    feed = RosterFeed(children, None)
    try:
        feed.refresh(files, 100.0)
    except Unreachable:
        files.fails = False
    feed.refresh(files, 100.1)
    assert children.rosters == [b"# nobody\n"]

"""The door to watchdog."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from dsage_spool.watch import Watch

SIGNALS = """
import signal, sys, time
from dsage_spool.watch import Watch

watch = Watch([sys.argv[1]])
signal.signal(signal.SIGALRM, lambda number, frame: watch.wake())
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
end, waits = time.monotonic() + 1.0, 0
while time.monotonic() < end:
    watch.wait(0.001)
    waits += 1
signal.setitimer(signal.ITIMER_REAL, 0)
watch.close()
print(waits)
"""


@pytest.fixture
def watch(tmp_path):
    made = Watch([str(tmp_path)])
    assert not made.problem
    yield made
    made.close()


def test_a_signal_at_any_moment_of_a_wait_ends_it_and_never_blocks(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 100


def test_a_new_file_ends_a_wait(watch, tmp_path):
    began = time.monotonic()
    threading.Timer(0.05, (tmp_path / "new").touch).start()
    watch.wait(30)
    assert time.monotonic() - began < 20


def test_many_events_end_one_wait_only(watch):
    for _ in range(1000):
        watch.wake()
    watch.wait(30)
    began = time.monotonic()
    watch.wait(0.1)
    assert time.monotonic() - began >= 0.09

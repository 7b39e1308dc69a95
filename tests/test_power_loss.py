"""Power loss on a real file system, at a small scale; `make prove` has the large one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from parties import wait_until
from proof import power_loss
from proof.block_log import (
    FLUSH, HEAD, PAGE, WRITE, Cut, Entry, Images, copy_sparse, read_log,
)  # fmt: skip
from proof.power_loss import PLANTED, Task, Told

pytestmark = pytest.mark.once

TESTS = Path(__file__).parent


@lru_cache
def lacking() -> str:
    return power_loss.why_not() or power_loss.why_not_kind("ext4")


@pytest.fixture
def disks():
    """For tests that need root, FUSE, loop devices and a file system."""
    if lacking():
        pytest.skip(lacking())


# -- the real thing -------------------------------------------------------------------------------


def test_whatever_was_promised_survives_a_power_loss(disks):
    told = power_loss.run(Task("ext4", 3, 12, turns=45))
    assert not told.violations, "\n".join(told.violations)
    assert told.images == 12 and told.jobs > 10 and told.promises > 15


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught_and_its_line_tells_how_to_see_it_again(disks, bug):
    told = power_loss.run(power_loss.planted_task(bug))
    assert told.images and told.violations
    again = Task(**json.loads(told.violations[0].rpartition("; ")[2]))
    assert again.only > 0 and replace(again, only=0) == power_loss.planted_task(bug)


def test_a_run_may_look_at_one_of_its_images_alone(disks):
    assert power_loss.run(Task("ext4", 0, 4, turns=5, only=2)).images == 1


def test_a_run_that_is_killed_leaves_nothing_behind(disks, tmp_path):
    """Neither processes nor mounts nor loop devices nor files, though it could not tidy up."""
    program = "from proof.power_loss import Task, run; run(Task('ext4', 0, 9999, turns=9999))"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=TESTS, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    try:
        wait_until(lambda: loops_on(tmp_path), "a disk of the run is in use")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: not loops_on(tmp_path), "no loop device is left")
    wait_until(lambda: not processes_of(tmp_path), "no process is left")
    wait_until(lambda: not os.listdir(tmp_path), "no file is left")


def loops_on(folder: Path) -> list[str]:
    """Files below a folder that loop devices are made of."""
    files = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            files.append(path.read_text())
        except OSError:
            continue  # gone since
    return [file for file in files if str(folder) in file]


def processes_of(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue
    return [line for line in found if str(folder) in line]


def test_a_run_that_breaks_is_told_and_not_passed_over(disks):
    told = power_loss.run(Task("ext4", 0, 1, plant="no such bug"))
    assert told.images == 0 and "no such bug" in told.violations[0]


def test_what_cannot_be_tried_is_a_row_with_the_reason(monkeypatch):
    monkeypatch.setattr(power_loss.os, "geteuid", lambda: 1000)
    for row in power_loss.prove("full"):
        assert (row.n, row.not_run) == (0, "only root can mount file systems") and row.holds


def test_a_file_system_is_only_passed_over_if_no_run_of_it_could_begin():
    cannot, could = Told(not_run="unknown file system"), Told(images=5)
    assert power_loss._sorted_out([cannot, cannot]) == ("unknown file system", [])
    lacking, told = power_loss._sorted_out([could, cannot])
    assert not lacking and [one.violations for one in told if one.violations]


# -- the log and its cuts -------------------------------------------------------------------------


def a_log(*steps: tuple[int, bytes] | None) -> list[Entry]:
    """Writes at an offset in pages; None is a flush."""
    entries, end = [], 0
    for step in steps:
        kind, offset, data = (WRITE, step[0] * PAGE, step[1]) if step else (FLUSH, 0, b"")
        end += HEAD.size + len(data)
        entries.append(Entry(kind, offset, data, end))
    return entries


def pages(images: Images, cut: Cut, path: Path) -> bytes:
    """The first byte of each page of an image."""
    images.make(cut, path)
    return path.read_bytes()[::PAGE]


def empty_disk(path: Path) -> Path:
    with open(path, "wb") as disk:
        disk.truncate(4 * PAGE)
    return path


def test_an_image_in_order_holds_the_writes_before_the_cut(tmp_path):
    log = a_log((0, b"a"), None, (1, b"b"), (0, b"c"), None)
    images = Images(empty_disk(tmp_path / "base"), log)
    seen = [pages(images, Cut(count), tmp_path / "image") for count in range(6)]
    assert seen == [b"\0\0\0\0", b"a\0\0\0", b"a\0\0\0", b"ab\0\0", b"cb\0\0", b"cb\0\0"]


def test_a_lost_cache_takes_any_of_the_unflushed_writes_and_no_flushed_one(tmp_path):
    log = a_log((0, b"a"), None, (1, b"b"), (2, b"c"))
    images = Images(empty_disk(tmp_path / "base"), log)
    seen = {pages(images, Cut(4, seed), tmp_path / "image") for seed in range(60)}
    assert seen == {b"a\0\0\0", b"ab\0\0", b"a\0c\0", b"abc\0"}


def test_the_last_long_write_may_be_torn_and_a_page_never_is(tmp_path):
    long, page = b"x" * (2 * PAGE), b"y" * PAGE
    images = Images(empty_disk(tmp_path / "base"), a_log((0, page), (1, long)))
    lengths = set()
    for seed in range(200):
        images.make(Cut(2, seed), tmp_path / "image")
        data = (tmp_path / "image").read_bytes()
        assert data.count(b"y") in (0, PAGE)
        lengths.add(data.count(b"x"))
    assert {0, PAGE, 2 * PAGE} < lengths and not {n % 512 for n in lengths} - {0}


def test_a_log_is_read_as_it_was_written(tmp_path):
    log = a_log((3, b"abc"), None, (0, b"d"))
    rows = [HEAD.pack(entry.kind, entry.offset, len(entry.data)) + entry.data for entry in log]
    (tmp_path / "log").write_bytes(b"".join(rows))
    assert read_log(tmp_path / "log") == log


def test_a_copy_of_a_disk_is_the_same_and_keeps_its_holes(tmp_path):
    with open(tmp_path / "old", "wb") as disk:
        disk.truncate(8 << 20)
        disk.seek(5 << 20)
        disk.write(b"here")
    copy_sparse(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == (tmp_path / "old").read_bytes()
    assert (tmp_path / "new").stat().st_blocks < 1000

"""The outbox: what a worker has finished outlives the worker."""

from __future__ import annotations

import pytest

from dsage_spool.errors import NoSpace
from dsage_spool.files import LocalFiles
from dsage_spool.worker.outbox import Outbox

A, B, C = ("20261122T232140-000000000a", 1), ("20261122T232140-000000000b", 2), ("x", 3)
BINARY = bytes(range(256)) * 3 + b"\nx 1 5\n"


def opened(folder, log=lambda text: None) -> Outbox:
    return Outbox(LocalFiles(folder), log)


def contents(outbox: Outbox) -> dict:
    return {(job, attempt): data for job, attempt, data in outbox.some()}


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_several_deliveries_of_one_file_outlive_a_restart(tmp_path):
    kept = {A: BINARY, B: b"", C: b"third"}
    opened(tmp_path).add(kept)
    assert len(files(tmp_path)) == 1
    again = opened(tmp_path)
    assert contents(again) == kept and again.keys() == set(kept) and len(again) == 3


def test_a_file_goes_with_the_last_of_its_deliveries(tmp_path):
    opened(tmp_path).add({A: b"1", B: b"2"})
    again = opened(tmp_path)
    again.remove(*A)
    again.remove(*A)
    assert contents(again) == {B: b"2"} and len(files(tmp_path)) == 1
    assert contents(opened(tmp_path)) == {A: b"1", B: b"2"}, "sent again, which is harmless"
    again.remove(*B)
    assert files(tmp_path) == [] and len(opened(tmp_path)) == 0


def test_files_of_earlier_starts_are_not_written_over(tmp_path):
    for key, data in ((A, b"1"), (B, b"2"), (C, b"3")):
        opened(tmp_path).add({key: data})
    assert list(contents(opened(tmp_path)).items()) == [(A, b"1"), (B, b"2"), (C, b"3")]
    assert len(files(tmp_path)) == 3


def test_nothing_to_keep_makes_no_file(tmp_path):
    opened(tmp_path).add({})
    assert files(tmp_path) == []


def test_a_file_that_was_being_written_is_ignored(tmp_path):
    opened(tmp_path).add({A: b"1"})
    whole = (tmp_path / files(tmp_path)[0]).read_bytes()
    (tmp_path / "new.partial").write_bytes(whole[:-1])
    again = opened(tmp_path)
    assert contents(again) == {A: b"1"}
    again.add({B: b"2"})
    assert contents(opened(tmp_path)) == {A: b"1", B: b"2"}


@pytest.mark.parametrize("keep", range(0, 60, 7))
def test_of_a_file_that_is_cut_off_the_whole_deliveries_are_kept(tmp_path, keep):
    opened(tmp_path).add({A: b"first" * 10, B: b"second"})
    [path] = tmp_path.iterdir()
    head = len(b"%s 1 50\n" % A[0].encode())
    path.write_bytes(path.read_bytes()[: head + keep])
    assert contents(opened(tmp_path)) == ({A: b"first" * 10} if keep >= 50 else {})


def test_large_deliveries_are_sent_a_few_at_a_time(tmp_path):
    outbox = opened(tmp_path)
    outbox.add({A: b"x" * 10, B: b"x" * 10, C: b"x" * 10})
    assert len(outbox.some(byte_limit=20)) == 2 and len(outbox.some(byte_limit=1)) == 1


def test_what_the_workers_disk_refuses_is_kept_in_memory_and_told(tmp_path):
    class FullDisk(LocalFiles):
        def write(self, path, data):
            raise NoSpace("the disk is full")

    told = []
    outbox = Outbox(FullDisk(tmp_path), told.append)
    outbox.add({A: b"1"})
    assert contents(outbox) == {A: b"1"} and told == ["results are kept in memory only: the disk is full"]
    outbox.remove(*A)
    assert len(outbox) == 0 and files(tmp_path) == []

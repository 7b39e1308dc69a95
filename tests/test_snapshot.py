"""What `status` and `show` learn from a spool, on real files."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from signed_jobs import ALICE, MALLORY, ROSTER, WORKER

from dsage_spool import layout, names, queuefile, records, signing
from dsage_spool.client import snapshot, story
from dsage_spool.errors import UnknownJob, UsageError
from dsage_spool.files import LocalFiles
from dsage_spool.queuefile import Next, Running
from dsage_spool.records import Envelope, Lease, Receipt, Worker
from dsage_spool.spool import dropping
from dsage_spool.spool.making import make_spool
from dsage_spool.states import State

JOB, OTHER, THIRD = (names.make_job(1795389700 + n, bytes([n] * 4)) for n in range(3))
NEW_PYTHON, OLD_PYTHON = "python=cpython-3571", "python=cpython-3495"


class Spool:
    """A spool whose queue file and workers are written by hand."""

    def __init__(self, folder) -> None:
        self.files = LocalFiles(folder)
        self.settings = make_spool(self.files, os.urandom, "2026-11-22")
        self.files.write(layout.ROSTER, ROSTER.encode())

    def queue(self, *lines: str, **counts: int) -> None:
        head = queuefile.head_lines(self.files.now(), "20261122.1", "box 4711", counts)
        self.files.write(layout.QUEUE, queuefile.finish([*head, *lines]))

    def worker(self, name: str, *offers: str, heard: float = 0.0) -> None:
        run = names.run_name(name, "00000000")
        path = dropping.enrol(
            self.files, Worker(name, run, "kiwi.lab", slots=4, python="3.11.2", offers=offers)
        )
        then = self.files.now() - heard
        os.utime(f"{self.files.root}/{path}", (then, then))

    def age(self, path: str, seconds: float) -> None:
        then = self.files.now() - seconds
        os.utime(f"{self.files.root}/{path}", (then, then))

    def look(self) -> snapshot.Snapshot:
        return snapshot.take(self.files, "the spool", local=True)

    def job(self, state: State, job: str = JOB, signer=ALICE, **fields) -> Envelope:
        fields = {"submitter": "alice", "kind": "call", "title": "2+2", **fields}
        envelope = Envelope(self.settings.id, job, **fields)
        text = records.make(envelope)
        self.files.make_folder(layout.job_folder(state, job))
        self.put(state, layout.ENVELOPE, text, job)
        signature = signing.sign(signer, text, signing.JOB_NAMESPACE)
        self.put(state, layout.SIGNATURE, signature.encode(), job)
        return envelope

    def put(self, state: State, name: str, data: bytes, job: str = JOB) -> None:
        self.files.write(layout.in_job(state, job, name), data)

    def read(self, state: State, name: str) -> bytes:
        return self.files.read(layout.in_job(state, JOB, name), 1 << 20)

    def receipt(self, state: State, signer=WORKER, **fields) -> None:
        digest = hashlib.sha256(self.read(state, layout.ENVELOPE)).hexdigest()
        parts = {layout.STDOUT, layout.STDERR} & set(
            self.files.names(layout.job_folder(state, JOB))
        )
        hashes = (f"{p}={hashlib.sha256(self.read(state, p)).hexdigest()}" for p in sorted(parts))
        fields = {"outcome": "ok", "value": "4", "hashes": tuple(hashes), **fields}
        text = records.make(
            Receipt(
                self.settings.id, JOB, 1, digest, "desk", "desk.00000000",
                wall_seconds=0.25, cpu_seconds=0.125, peak_memory=35 << 20, host="desk.lab",
                python="3.11.2", **fields,
            )  # fmt: skip
        )
        self.put(state, layout.RECEIPT, text)
        signature = signing.sign(signer, text, signing.RESULT_NAMESPACE)
        self.put(state, layout.RECEIPT_SIGNATURE, signature.encode())

    def tell(self, job: str = JOB) -> story.Story:
        return story.collect(self.files, job, place="the spool")


@pytest.fixture
def spool(tmp_path):
    return Spool(make_folder(tmp_path / "spool"))


def make_folder(path):
    path.mkdir()
    return path


def waiting(*needs: str, job: str = JOB) -> str:
    return queuefile.next_line(Next(job, 1, 0, "alice", needs, "2+2"))


def why(spool: Spool) -> str:
    return spool.look().waiting[0].why


# -- the whole spool ---------------------------------------------------------------------------


def test_a_new_spool_has_nothing_and_no_server(spool):
    shot = spool.look()
    assert (shot.server, shot.server_age, shot.server_alive) == ("", None, False)
    assert not shot.counts and not shot.workers and not shot.waiting


def test_a_folder_that_is_no_spool_is_told_so(tmp_path):
    with pytest.raises(UsageError, match="not a spool"):
        snapshot.take(LocalFiles(tmp_path), "here", local=True)


def test_a_look_counts_jobs_workers_and_busy_slots(spool):
    running = Running(OTHER, 1, "kiwi", spool.files.now() - 60, "alice", "long")
    spool.queue(
        "owner: alice queued=1 running=1 use=60",
        queuefile.running_line(running),
        waiting(),
        queued=1,
        running=1,
    )
    spool.worker("kiwi")
    shot = spool.look()
    assert shot.counts == {"queued": 1, "running": 1}
    assert [(w.name, w.slots, w.busy, w.alive) for w in shot.workers] == [("kiwi", 4, 1, True)]
    assert [row.job for row in shot.running] == [OTHER]
    assert [(o.name, o.queued, o.running, o.use) for o in shot.owners] == [("alice", 1, 1, 60.0)]


def test_drops_that_the_server_has_not_seen_are_counted(spool):
    spool.files.write(layout.drop(JOB), b"whatever")
    assert spool.look().incoming == 1


def test_a_job_waits_because_no_server_runs(spool):
    spool.queue(waiting())
    spool.age(layout.QUEUE, 3600)
    assert why(spool) == "no server is running"


def test_a_job_waits_because_no_worker_was_heard(spool):
    spool.queue(waiting())
    spool.worker("kiwi", heard=3600)
    assert why(spool) == "no worker was heard lately"


def test_a_job_waits_because_no_worker_has_its_python(spool):
    spool.queue(waiting(NEW_PYTHON))
    spool.worker("kiwi", OLD_PYTHON)
    assert why(spool) == f"kiwi lacks {NEW_PYTHON} (it has {OLD_PYTHON})"


def test_each_worker_that_cannot_run_a_job_has_its_reason(spool):
    spool.queue(waiting("gpu", "memory=1000"))
    spool.worker("kiwi", "memory=2000")
    spool.worker("desk", "gpu", "memory=500")
    assert why(spool) == "desk lacks memory=1000 (it has memory=500); kiwi lacks gpu"


def test_a_job_that_somebody_can_run_waits_for_a_free_slot(spool):
    spool.queue(waiting("gpu"))
    spool.worker("kiwi")
    spool.worker("desk", "gpu")
    assert why(spool) == "waits for a free slot"


def test_a_snapshot_goes_through_json_unchanged(spool):
    spool.queue(waiting("gpu"), queued=1)
    spool.worker("kiwi")
    told = spool.look().to_json()
    assert told["version"] == 1
    again = json.loads(json.dumps(told))
    assert again["waiting"][0]["job"] == JOB and again["workers"][0]["name"] == "kiwi"


# -- one job -----------------------------------------------------------------------------------


def test_the_story_of_a_good_job_has_its_facts_and_its_signatures_verified(spool):
    spool.job(State.DONE)
    spool.put(State.DONE, layout.lease_name(1), lease(ended=1795389703.0, why="delivered"))
    spool.put(State.DONE, layout.STDOUT, b"hello\nworld\n")
    spool.put(State.DONE, layout.VERDICT, b"2026-11-22T23:21:43Z done: 4\n")
    spool.receipt(State.DONE)
    told = spool.tell()
    assert told.state is State.DONE and told.submitted == 1795389700
    assert told.envelope_check.verified and told.receipt_check.verified
    assert told.envelope.title == "2+2" and told.receipt.value == "4"
    assert [(one.worker, one.why) for one in told.leases] == [("desk", "delivered")]
    assert told.outputs[layout.STDOUT].first == ("hello", "world")
    assert told.outputs[layout.STDOUT].signed is True
    assert told.verdict.endswith("done: 4") and not told.problems


def lease(**fields) -> bytes:
    return records.make(Lease(JOB, 1, "desk", "desk.00000000", "desk.lab", 1795389701.0, **fields))


def test_a_job_signed_by_somebody_else_is_not_verified(spool):
    spool.job(State.QUEUED, signer=MALLORY)
    check = spool.tell().envelope_check
    assert not check.verified and "not in the roster" in check.why


def test_a_changed_envelope_is_not_verified_and_neither_is_its_receipt(spool):
    spool.job(State.DONE)
    spool.receipt(State.DONE)
    text = spool.read(State.DONE, layout.ENVELOPE)
    spool.put(State.DONE, layout.ENVELOPE, text.replace(b"2+2", b"2+3"))
    told = spool.tell()
    assert not told.envelope_check.verified
    assert told.receipt_check.why == "it is for other words than those of the envelope"


def test_a_receipt_of_a_person_is_not_verified(spool):
    spool.job(State.DONE)
    spool.receipt(State.DONE, signer=ALICE)
    assert not spool.tell().receipt_check.verified


def test_output_that_the_worker_did_not_sign_is_told_apart(spool):
    spool.job(State.DONE)
    spool.put(State.DONE, layout.STDOUT, b"4\n")
    spool.receipt(State.DONE)
    spool.put(State.DONE, layout.STDOUT, b"5\n")
    assert spool.tell().outputs[layout.STDOUT].signed is False


def test_a_long_output_is_shown_by_its_first_and_last_lines(spool):
    spool.job(State.DONE)
    spool.put(State.DONE, layout.STDOUT, b"".join(b"line %d\n" % n for n in range(100_000)))
    found = spool.tell().outputs[layout.STDOUT]
    assert found.first[0] == "line 0" and len(found.first) == story.LINES
    assert found.last[-1] == "line 99999" and len(found.last) == story.LINES
    assert 0 < found.left_out < found.size


def test_a_record_that_cannot_be_read_is_a_problem_and_no_error(spool):
    spool.job(State.QUEUED)
    spool.put(State.QUEUED, layout.ENVELOPE, b"nonsense\x1b[2J")
    told = spool.tell()
    assert told.envelope is None and not told.envelope_check.verified
    assert told.problems and "\x1b" not in str(told.problems)


def test_a_link_in_a_job_folder_is_not_followed(spool, tmp_path):
    (tmp_path / "secret").write_text("secret\n")
    spool.job(State.DONE)
    os.symlink(tmp_path / "secret", f"{spool.files.root}/done/{JOB}/stdout")
    told = spool.tell()
    assert layout.STDOUT not in told.outputs and "secret" not in str(told)


def test_a_queued_job_tells_why_it_waits_and_how_many_are_before_it(spool):
    spool.job(State.QUEUED)
    spool.queue(waiting(job=OTHER), waiting(), queued=2)
    spool.worker("kiwi")
    assert spool.tell().waits == ["waits for a free slot", "1 before it"]


def test_a_job_that_runs_after_another_says_so(spool):
    spool.job(State.QUEUED, after=(OTHER,))
    spool.job(State.RUNNING, OTHER)
    assert spool.tell().waits == [f"runs after {OTHER}, which is running"]


def test_a_job_with_a_date_says_so(spool):
    spool.job(State.QUEUED, not_before=4102444800)
    assert spool.tell().waits == ["not before 2100-01-01T00:00:00Z"]


def test_a_running_job_shows_what_it_has_printed_so_far(spool):
    spool.job(State.RUNNING)
    spool.put(State.RUNNING, layout.lease_name(1), lease())
    spool.files.write(layout.output(JOB, 1), b"curve 17\n")
    assert spool.tell().outputs["so far"].first == ("curve 17",)


def test_a_dropped_job_and_a_refused_one_have_a_story(spool):
    spool.files.write(layout.drop(JOB), b"whatever")
    assert spool.tell().state is State.INCOMING
    spool.files.make_folder(layout.job_folder(State.REJECTED, OTHER))
    text = b"2026-11-22T23:21:43Z rejected: no signature\n"
    spool.put(State.REJECTED, layout.VERDICT, text, OTHER)
    assert "no signature" in spool.tell(OTHER).verdict


def test_a_job_that_is_not_there_is_unknown(spool):
    with pytest.raises(UnknownJob, match="no such job"):
        spool.tell(THIRD)


def test_a_story_goes_through_json_unchanged(spool):
    spool.job(State.DONE)
    spool.put(State.DONE, layout.STDOUT, b"4\n")
    spool.receipt(State.DONE)
    told = json.loads(json.dumps(spool.tell().to_json()))
    assert told["version"] == 1 and told["state"] == "done"
    assert told["receipt"]["value"] == "4" and told["receipt_check"]["verified"] is True
    assert told["outputs"]["stdout"]["first"] == ["4"]

"""Client and worker far away: the whole path over a real sshd, and what a bad line does to it."""

from __future__ import annotations

import random
import subprocess
import time
from typing import Callable, Iterator

import pytest

from commands import COMMAND, check_complaint, environment
from dsage_spool import keys
from dsage_spool.client.compose import JobNames, Options, SignedJob, compose, source_work
from dsage_spool.errors import Unreachable
from dsage_spool.files import Files
from dsage_spool.places import open_files
from dsage_spool.spool import dropping, settings
from parties import BOUND, wait_until
from ssh_world import SshWorld
from sshd import make_key

GATED = 'echo first; until [ -e "$0" ]; do sleep 0.02; done; echo last'


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """With a server and a worker; for tests that do not touch the line."""
    made = SshWorld(tmp_path_factory.mktemp("calm"))
    made.server()
    made.worker("desk", "--slots", "2")
    yield made
    made.close()


@pytest.fixture
def far(tmp_path):
    """For tests that cut it."""
    made = SshWorld(tmp_path)
    yield made
    made.close()


# -- all is well -------------------------------------------------------------------------------


def test_a_function_call_goes_there_and_back(calm):
    session = calm.session()
    assert session.submit(divmod, 17, 5).result(BOUND) == (3, 2)
    assert session.durable
    assert list(session.map(pow, [2, 3, 4], [5, 5, 5])) == [32, 243, 1024]


def test_source_and_command_go_there_and_back(calm):
    assert calm.dsage("submit", "-w", "2^10").out == "1024\n"
    assert calm.dsage("submit", "-w", "--", "echo", "from afar").out == "from afar\n"
    assert calm.dsage("submit", "-w", "--", "false").status == 1


def test_status_show_and_result_over_ssh(calm):
    job = calm.dsage("submit", "-t", "a title", "6*7").job
    assert calm.dsage("result", job, "--timeout", "30s").out == "42\n"
    shot = calm.dsage("status", "--json").json
    assert shot["server_alive"] and [row["name"] for row in shot["workers"]] == ["desk"]
    assert "desk" in calm.dsage("status").out
    story = calm.dsage("show", job[-6:], "--json").json
    assert (story["job"], story["state"]) == (job, "done")
    assert "a title" in calm.dsage("show", "last").out


def test_log_follows_a_running_command_over_ssh(calm):
    gate = calm.root / "gate-of-log"
    job = calm.dsage("submit", "--", "sh", "-c", GATED, str(gate)).job
    there = environment(calm, DSAGE_SPOOL_SPOOL=calm.place, **calm.ssh)
    with subprocess.Popen(
        [*COMMAND, "log", "-f", job], env=there, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as log:  # fmt: skip
        assert log.stdout.readline() == "first\n"
        assert calm.where(job) == ["running"]
        gate.touch()
        assert log.communicate(timeout=BOUND) == ("last\n", "")


def test_a_running_job_is_cancelled_over_ssh(calm):
    job = calm.dsage("submit", "--", "sleep", "1000").job
    wait_until(lambda: calm.where(job) == ["running"], "it runs")
    assert calm.dsage("cancel", job).out == f"{job} cancelled\n"
    assert calm.dsage("result", job).status == 3


def test_the_doctor_finds_nothing_wrong_over_ssh(calm):
    told = calm.dsage("doctor", "--json")
    by_what = {check["what"]: check for check in told.json["checks"]}
    assert told.status == 0, told
    assert by_what["spool"]["detail"] == f"{calm.place}: its host key is on file, the login works"
    assert {"your name", "drop boxes", "hard links", "flush", "clock", "server", "workers"} <= {
        what for what, check in by_what.items() if check["level"] == "ok"
    }
    left = [path for box in calm.spool.iterdir() if box.is_dir() for path in box.glob("*doctor*")]
    assert left == [] and not list(calm.spool.glob("*/.doctor*"))


# -- who is refused ----------------------------------------------------------------------------


def ssh_config(world: SshWorld, known_hosts: str, name: str, **options: str) -> dict[str, str]:
    """The settings of somebody with other host keys on file."""
    (world.root / f"{name}.hosts").write_text(known_hosts)
    options["UserKnownHostsFile"] = str(world.root / f"{name}.hosts")
    (world.root / f"{name}.config").write_text(world.sshd.client_config(**options))
    return {"DSAGE_SPOOL_SSH_CONFIG": str(world.root / f"{name}.config")}


def test_an_unknown_host_key_is_refused_with_the_remedy(calm):
    nobody = ssh_config(calm, "", "unknown")
    remedy = f"ssh -p {calm.sshd.port} "
    for words in (["status"], ["submit", "2+2"], ["pull", calm.place, "--name", "desk2"]):
        check_complaint(calm.dsage(*words, **nobody), 77, "host key", "SHA256:", remedy)
    told = calm.dsage("doctor", **nobody)
    assert told.status == 1 and "fail  spool" in told.out and remedy in told.out
    assert "ok    your key" in told.out


def test_a_changed_host_key_is_refused_with_a_warning(calm):
    make_key(calm.root / "other_key")
    kind, blob = (calm.root / "other_key.pub").read_text().split()[:2]
    changed = ssh_config(calm, f"[127.0.0.1]:{calm.sshd.port} {kind} {blob}\n", "changed")
    told = calm.dsage("status", **changed)
    check_complaint(told, 77, "THE HOST KEY HAS CHANGED", "ssh-keygen -R")


def test_a_key_that_the_host_does_not_know_is_refused_with_the_remedy(calm):
    make_key(calm.root / "nobodys_key")
    hosts = (calm.sshd.folder / "known_hosts").read_text()
    stranger = ssh_config(calm, hosts, "stranger", IdentityFile=str(calm.root / "nobodys_key"))
    told = calm.dsage("status", **stranger)
    check_complaint(told, 77, "login refused", "nobodys_key", "authorized_keys")


# -- a bad line --------------------------------------------------------------------------------


def test_a_worker_whose_connections_are_killed_comes_back_and_runs_nothing_twice(far):
    far.server()
    worker = far.worker("desk", "--slots", "2")
    jobs = {far.submit_counted(value).id: value for value in range(6)}
    wait_until(lambda: len(far.marks()) == 2, "two jobs run")
    assert far.cut() > 0
    wait_until(lambda: "trying again" in worker.err, "the worker has noticed")
    far.open_gate()
    wait_until(lambda: len(far.marks()) > 2 or far.where(max(jobs)) == ["done"], "it is back")
    far.cut()
    for job in jobs:
        far.check_ended_once(job)
    assert {job: far.value(job) for job in jobs} == jobs
    assert {job: len(far.marks(job)) for job in jobs} == dict.fromkeys(jobs, 1)
    assert worker.running


def test_a_result_that_is_finished_while_the_host_is_away_is_delivered_after(far):
    far.server()
    far.worker("desk")
    job = far.submit_counted("patient").id
    far.wait_for_mark(job)
    far.finish_unheard("desk")
    assert far.where(job) == ["running"]
    assert far.dsage("status").status == 75
    far.sshd.start()
    far.check_ended_once(job)
    assert far.value(job) == "patient"
    assert len(far.marks(job)) == 1 and far.outbox("desk") == []


def test_the_next_pull_delivers_what_a_killed_worker_had_finished(far):
    far.server()
    worker = far.worker("desk")
    job = far.submit_counted("inherited").id
    far.wait_for_mark(job)
    far.finish_unheard("desk")
    worker.kill()
    far.sshd.start()
    assert far.work("desk", verb="pull").end() == 0
    far.check_ended_once(job)
    assert far.value(job) == "inherited"
    assert len(far.marks(job)) == 1 and far.outbox("desk") == []


def test_a_client_goes_on_waiting_in_another_process_after_its_line_was_cut(far):
    far.server()
    far.worker("desk")
    session = far.session()
    job = far.session().job(far.submit_counted("later").id)
    far.wait_for_mark(job.id)
    far.cut()
    with pytest.raises(Unreachable):
        session.poll(), session.state(job.id)
    with pytest.raises(Unreachable):
        job.result(BOUND)
    far.open_gate()
    assert far.value(job.id) == "later"


# -- a client that is cut while it submits -------------------------------------------------------


def many_signed(world: SshWorld, count: int, size: int) -> list[SignedJob]:
    config = world.config("alice")
    signer = keys.find_signer(None, config.home, {})
    found = settings.load(open_files(str(world.spool)))
    fresh = JobNames(time.time, random.Random(5).randbytes)
    works = [source_work(f"{number}  # {'x' * size}") for number in range(count)]
    return [compose(work, Options(), found.id, "alice", signer, fresh.new()) for work in works]


class CutFiles:
    """Files over a line that is cut when so many rows have been asked for."""

    def __init__(self, files: Files, cut: Callable[[], object], at: int) -> None:
        self._files, self._cut, self._at = files, cut, at

    def many(self, operation: str, rows: list[tuple]) -> list:
        return self._files.many(operation, self._until(rows))

    def _until(self, rows: list[tuple]) -> Iterator[tuple]:
        for number, row in enumerate(rows):
            if number == self._at:
                self._cut()
            yield row

    def sync(self, paths: list[str]) -> None:
        self._files.sync(paths)


def put(world: SshWorld, drops: list, cut_at: int = -1) -> list:
    files = open_files(world.place, file=str(world.sshd.config))
    try:
        return dropping.put(CutFiles(files, world.cut, cut_at), "n0nce000", drops)
    finally:
        files.close()


def test_the_same_files_sent_again_after_a_cut_run_once(far):
    signed = many_signed(far, 150, 2_000)
    drops = [dropping.job_drop(j.job, j.envelope, j.signature, j.payload) for j in signed]
    with pytest.raises(Unreachable):  # by the flush: what has arrived may not be durable
        put(far, drops, cut_at=100)
    came = [job.job for job in signed if far.where(job.job)]
    assert 0 < len(came) < len(signed), "some have arrived"
    far.server()
    far.worker("desk")
    far.wait_for(came[0], "done")  # so that some of what is sent again has ended already
    assert put(far, drops) == [None] * len(drops)
    for job in signed:
        far.wait_for(job.job, "done")
        far.check_ended_once(job.job)
    session = far.session()
    assert [session.job(job.job).result(BOUND) for job in signed] == list(range(len(signed)))
    journal = "".join(path.read_text() for path in (far.spool / "journal").glob("2*"))
    for verb in ("accept", "settle"):
        assert [journal.count(f" {job.job} {verb} ") for job in signed] == [1] * len(signed)
    assert [path.name for path in (far.spool / "rejected").iterdir()] == [".keep"]

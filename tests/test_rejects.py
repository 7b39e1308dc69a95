"""Whatever lies in a drop box: the server says why it is refused, goes on, and runs none of it."""

from __future__ import annotations

import os
import pickle
import socket

import pytest

from dsage_spool import layout, names, pack, records
from dsage_spool.errors import Denied
from dsage_spool.files import LocalFiles
from dsage_spool.records import Worker
from dsage_spool.spool import dropping, journal
from dsage_spool.states import State
from memory_files import MemoryFiles
from spool_world import LEASE, MALLORY, PEOPLE, WORKERS, FakeClock, World


@pytest.fixture
def world():
    clock = FakeClock()
    made = World(MemoryFiles(clock.wall), clock)
    made.start_server()
    return made


@pytest.fixture
def disk(tmp_path):
    """The same on a real disk, where there are pipes and links."""
    made = World(LocalFiles(tmp_path))
    made.folder = tmp_path
    made.start_server()
    return made


def refused(world: World, reason: str) -> str:
    """The one thing that was refused, for that reason; the server is at rest and still takes jobs."""
    world.settle_down()
    [folder] = world.files.names("rejected")
    assert sorted(world.files.names(f"rejected/{folder}")) == ["drop", "verdict"]
    verdict = world.files.read(f"rejected/{folder}/verdict", 4096).decode()
    assert reason in verdict, verdict
    assert verdict.count("\n") == 1
    still_serves(world)
    return folder


def still_serves(world: World) -> None:
    job = world.submit()
    world.settle_down()
    assert world.state(job) is State.QUEUED


def repacked(parts: dict[str, bytes], **changed: bytes) -> bytes:
    return pack.join({**parts, **{name.replace("_", "."): data for name, data in changed.items()}})


# -- jobs ---------------------------------------------------------------------------------------


def drop_job(world: World, job: str, data: bytes) -> None:
    world.drop(layout.INCOMING, names.drop_name(job), data)


@pytest.mark.parametrize("fields, reason", [
    ({"signer": MALLORY}, "not in the roster"),
    ({"signer": PEOPLE["bob"]}, "not for 'alice'"),
    ({"signer": WORKERS["kiwi"]}, "not for 'alice'"),
    ({"spool": "anotherspool"}, "made for another spool"),
    ({"payload_size": 5}, "not as long as the envelope says"),
    ({"payload_sha256": "0" * 64}, "its sha256 differs"),
    ({"not_after": 1_000_000}, "too late"),
    ({"not_after": -(10**20)}, "not-after"),
    ({"after": ("20200101T000000-0000000000",)}, "after: no job"),
    ({"priority": 1001}, "priority"),
    ({"attempts": 0}, "attempts"),
    ({"needs": ("a=b=c",)}, "needs"),
    ({"time_limit": -1}, "time-limit"),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else "")  # fmt: skip
def test_a_job_that_is_not_right_is_rejected_under_its_own_name(world, fields, reason):
    job = world.submit(**fields)
    assert refused(world, reason) == job


def test_an_unsigned_job_is_rejected(world):
    job, parts = world.job_parts()
    drop_job(world, job, repacked(parts, envelope_sig=b""))
    assert refused(world, "signature") == job


def test_a_job_without_its_signature_part_is_rejected(world):
    job, parts = world.job_parts()
    del parts["envelope.sig"]
    drop_job(world, job, pack.join(parts))
    refused(world, "lacks its envelope, signature or payload")


def test_a_job_signed_for_results_is_rejected(world):
    from dsage_spool import signing

    job, parts = world.job_parts()
    wrong = signing.sign(PEOPLE["alice"], parts["envelope"], signing.RESULT_NAMESPACE).encode()
    drop_job(world, job, repacked(parts, envelope_sig=wrong))
    refused(world, "namespace")


def test_each_truncation_of_a_job_file_is_rejected(world):
    job, parts = world.job_parts()
    whole = pack.join(parts)
    for length in [0, 1, 30, 80, *range(100, len(whole), 97), len(whole) - 1]:
        job, parts = world.job_parts()
        drop_job(world, job, pack.join(parts)[:length])
        world.settle_down()
        assert world.state(job) is State.REJECTED, length
    still_serves(world)


def test_each_flipped_byte_of_a_job_file_is_rejected(world):
    for place in range(0, 700, 23):
        job, parts = world.job_parts(payload=b"p" * 100)
        data = bytearray(pack.join(parts))
        data[place % len(data)] ^= 1
        drop_job(world, job, bytes(data))
        world.settle_down()
        assert world.states(job) in ([State.REJECTED], [State.QUEUED]), place
        if world.state(job) is State.QUEUED:  # a letter of the armour that means the same
            found = world.parts(job)
            assert (found["envelope"], found["payload"]) == (parts["envelope"], parts["payload"])


def test_an_oversized_job_is_rejected_without_being_read(world):
    job = world.new_name()
    world.drop(layout.INCOMING, names.drop_name(job), b"x" * (world.settings.drop_limit + 1))
    assert refused(world, "larger than") == job


@pytest.mark.parametrize("old, new, reason", [
    (b"dsage-spool-pack: 1", b"dsage-spool-pack: 2", "another version"),
    (b"dsage-spool-pack: 1", b"dsage-spool-pack: 1 ", "another version"),
    (b"part: envelope ", b"part: envelop ", "no place in this pack"),
])  # fmt: skip
def test_a_job_file_of_unknown_form_is_rejected(world, old, new, reason):
    job, parts = world.job_parts()
    drop_job(world, job, pack.join(parts).replace(old, new, 1))
    refused(world, reason)


def test_an_envelope_of_an_unknown_version_is_rejected(world):
    job, parts = world.job_parts()
    text = parts["envelope"].replace(b"envelope: 1", b"envelope: 2")
    drop_job(world, job, repacked(parts, envelope=text))
    refused(world, "version 2, and this release reads version 1")


def test_a_job_named_as_another_is_rejected(world):
    _, parts = world.job_parts()
    drop_job(world, world.new_name(), pack.join(parts))
    refused(world, "named for another job")


def test_an_identical_replay_is_harmless(world):
    job, parts = world.job_parts()
    for _ in range(3):
        drop_job(world, job, pack.join(parts))
        world.settle_down()
    assert world.state(job) is State.QUEUED
    assert world.files.names("incoming") == world.files.names("rejected") == []


def test_a_replay_of_an_ended_job_does_not_bring_it_back(world):
    job, parts = world.job_parts()
    drop_job(world, job, pack.join(parts))
    world.request(job, "cancel")
    world.settle_down()
    assert world.state(job) is State.CANCELLED
    drop_job(world, job, pack.join(parts))
    world.settle_down()
    assert world.state(job) is State.CANCELLED
    assert world.files.names("incoming") == world.files.names("rejected") == []


def test_another_job_under_a_name_in_use_is_rejected_under_a_fresh_name(world):
    job = world.submit()
    world.settle_down()
    before = world.parts(job)
    _, parts = world.job_parts(job=job, payload=b"3+3")
    drop_job(world, job, pack.join(parts))
    assert refused(world, "it is another one") != job
    assert world.parts(job) == before


def test_garbage_under_a_name_in_use_does_not_touch_the_job(world):
    job = world.submit()
    world.settle_down()
    drop_job(world, job, b"garbage")
    assert refused(world, "not a pack") != job
    assert world.state(job) is State.QUEUED


def test_what_was_verified_is_what_is_kept(world):
    job, parts = world.job_parts()
    drop_job(world, job, pack.join(parts))
    world.settle_down()
    assert world.parts(job) == parts


def test_nothing_in_a_payload_is_ever_loaded(world, tmp_path):
    mark = tmp_path / "executed"
    evil = pickle.dumps(Evil(str(mark)))
    job = world.submit(payload=evil)
    run = world.enrol()
    world.settle_down()
    world.claim(run, job)
    world.deliver(job, 1, run, parts={"result": evil, "stdout": evil})
    drop_job(world, world.new_name(), evil)
    world.drop(layout.RESULTS, names.claim_name(job, 2, "result"), evil)
    world.settle_down()
    assert world.state(job) is State.DONE
    assert not mark.exists()


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


# -- what is not even a file ----------------------------------------------------------------------

BOXES = ("incoming", "locks", "results")


def plain_names(box: str, job: str) -> str:
    return {"incoming": f"{job}.job", "locks": f"{job}.1.lock", "results": f"{job}.1.result"}[box]


def make_pipe(path) -> None:
    os.mkfifo(path)


def make_link(path) -> None:
    path.symlink_to("/etc/passwd")


def make_dead_link(path) -> None:
    path.symlink_to("nowhere")


def make_folder(path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


def make_socket(path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("make", [make_pipe, make_link, make_dead_link, make_folder, make_socket])
def test_what_is_no_regular_file_is_set_aside(disk, box, make):
    job = disk.submit()
    disk.settle_down()
    name = plain_names(box, job if box != "incoming" else disk.new_name())
    make(disk.folder / box / name)
    disk.settle_down()
    assert disk.files.names(box) == []
    [folder] = disk.files.names("rejected")
    assert os.path.lexists(disk.folder / "rejected" / folder / "drop")
    assert disk.state(job) is State.QUEUED
    still_serves(disk)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", [
    "x", "a b", "-rf", "new\nline", "\x1b[2J", "..x", "\u202egnp.job", "ü" * 100, "n" * 255, "%s%n",
    "20261122T232140-4k2m7qx9ab.job\n", "20261122T232140-4K2M7QX9AB.job",
    "20261122T232140-4k2m7qx9ab.0.lock", "20261122T232140-4k2m7qx9ab.1.result.job",
    os.fsdecode(b"\xff\xfe"), "$(touch x)", "server.lock", "[x]",
], ids=ascii)  # fmt: skip
def test_a_name_that_is_none_of_ours_is_never_opened(disk, box, name):
    os.mkfifo(disk.folder / box / name)  # to open it would be to wait
    if name.startswith("."):
        disk.settle_down()
        assert disk.files.names("rejected") == []
        return
    disk.settle_down()
    assert disk.files.names(box) == []
    [folder] = disk.files.names("rejected")
    verdict = disk.files.read(f"rejected/{folder}/verdict", 4096).decode()
    assert verdict.count("\n") == 1 and "\x1b" not in verdict and "\u202e" not in verdict
    for file in disk.files.names("journal"):
        text = disk.files.read(f"journal/{file}", 1 << 16).decode()
        assert all(journal.parse(line) for line in text.splitlines())
    still_serves(disk)


def test_a_folder_in_place_of_live_output_does_not_stop_a_pass(disk):
    run, job = disk.enrol(), disk.submit()
    disk.settle_down()
    disk.claim(run, job)
    disk.settle_down()
    (disk.folder / layout.output(job, 1)).mkdir()
    disk.deliver(job, 1, run)
    disk.settle_down()
    assert disk.state(job) is State.DONE
    assert disk.files.names("locks") == []
    assert any("cannot be put away" in line for line in disk.log)
    still_serves(disk)


# -- traps in tmp/ --------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["at the start", "before a job"])
def test_a_link_in_tmp_leads_the_server_nowhere(disk, when):
    precious = disk.submit()
    disk.settle_down()
    job, parts = disk.job_parts()
    os.symlink("../queued", disk.folder / "tmp" / f"server.{job}")
    if when == "at the start":
        disk.start_server()
    drop_job(disk, job, pack.join(parts))
    disk.settle_down()
    assert disk.state(precious) is disk.state(job) is State.QUEUED
    assert disk.parts(job) == parts


def test_a_file_in_tmp_does_not_keep_the_server_from_starting(disk):
    (disk.folder / "tmp" / "server.mine").write_text("x")
    disk.start_server()
    still_serves(disk)


def test_a_pipe_in_tmp_does_not_stop_the_server(disk):
    """Opening a pipe that nobody reads would wait for ever."""
    os.mkfifo(disk.folder / "tmp" / "probe")
    with pytest.raises(Exception, match="pipe"):
        disk.files.write("tmp/probe", b"x")


def test_what_another_user_owns_may_not_be_linked_but_is_moved(world):
    """Linux forbids hard links to other people's files; the drop must go away all the same."""

    link_really = world.server_files.link

    def link(source, path):
        if source.startswith("incoming/"):
            raise Denied(f"{source}: operation not permitted")
        link_really(source, path)

    job = world.submit()
    world.server_files.link = link
    world.settle_down()
    assert world.state(job) is State.QUEUED
    assert world.files.names("incoming") == []


# -- requests -------------------------------------------------------------------------------------


def queued(world: World) -> str:
    job = world.submit()
    world.settle_down()
    return job


@pytest.mark.parametrize("wish, reason", [
    ({"submitter": "bob"}, "the job is alice's, not bob's"),
    ({"signer": MALLORY}, "not in the roster"),
    ({"signer": PEOPLE["bob"]}, "not for 'alice'"),
    ({"signer": WORKERS["kiwi"]}, "not for 'alice'"),
], ids=["bob", "nobody", "bob as alice", "a worker"])  # fmt: skip
def test_a_request_of_somebody_else_is_rejected(world, wish, reason):
    job = queued(world)
    world.request(job, "cancel", **wish)
    refused(world, reason)
    assert world.state(job) is State.QUEUED


def test_a_request_about_no_job_is_rejected(world):
    world.request(world.new_name(), "hold")
    refused(world, "no job")


@pytest.mark.parametrize("nonce", ["00000000", "zzzzzzzz"])
def test_a_request_may_come_in_the_same_moment_as_its_job(world, nonce):
    job = world.submit()
    world.request(job, "cancel", nonce=nonce)
    world.settle_down()
    assert world.state(job) is State.CANCELLED
    assert world.files.names("rejected") == []


# -- locks ----------------------------------------------------------------------------------------


def test_a_lock_of_an_unknown_worker_is_removed(world):
    job = queued(world)
    stranger = Worker("stranger", "stranger.00000000")
    dropping.enrol(world.files, stranger)
    world.claim(stranger.run, job)
    world.settle_down()
    assert world.state(job) is State.QUEUED
    assert world.files.names("locks") == []
    still_serves(world)


@pytest.mark.parametrize("attempt", [2, 7, 999999])
def test_a_lock_of_an_attempt_that_was_not_given_out_is_removed(world, attempt):
    job, run = queued(world), world.enrol()
    world.claim(run, job, attempt)
    world.settle_down()
    assert world.state(job) is State.QUEUED
    assert world.files.names("locks") == []


@pytest.mark.parametrize("text", [
    b"", b"mine", b"\0" * 10, b"x" * (records.RECORD_LIMIT + 1),
    b"dsage-spool-worker: 1\nworker: kiwi\nrun: ../queue\n",
    b"dsage-spool-worker: 1\nworker: kiwi\nrun: fig.00000000\n",
    b"dsage-spool-worker: 2\nworker: kiwi\nrun: kiwi.00000000\n",
])  # fmt: skip
def test_a_lock_that_says_nothing_true_holds_nothing(world, text):
    job = queued(world)
    world.files.append(layout.lock(job, 1), text)
    world.settle_down()
    assert world.state(job) is State.QUEUED
    assert world.files.names("locks") == []
    still_serves(world)


# -- results --------------------------------------------------------------------------------------


def claimed(world: World) -> tuple[str, str]:
    job, run = queued(world), world.enrol()
    world.claim(run, job)
    world.settle_down()
    return job, run


@pytest.mark.parametrize("fields, reason", [
    ({"signer": MALLORY}, "not in the roster"),
    ({"signer": WORKERS["fig"]}, "not for 'kiwi'"),
    ({"signer": PEOPLE["alice"]}, "not for 'kiwi'"),
    ({"spool": "anotherspool"}, "made for another spool"),
    ({"envelope_sha256": "0" * 64}, "other words"),
    ({"envelope_sha256": "not hexadecimal"}, "envelope-sha256"),
    ({"hashes": ("result=" + "0" * 64, "stdout=" + "0" * 64)}, "its receipt swears to"),
    ({"hashes": ()}, "its receipt swears to"),
    ({"wall_seconds": float("inf")}, "wall-seconds"),
    ({"wall_seconds": float("nan")}, "wall-seconds"),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else "")  # fmt: skip
def test_a_forged_result_is_rejected_and_the_job_goes_on(world, fields, reason):
    job, run = claimed(world)
    world.deliver(job, 1, run, **fields)
    refused(world, reason)
    assert world.state(job) is State.RUNNING
    world.deliver(job, 1, run)
    world.settle_down()
    assert world.state(job) is State.DONE


def test_another_worker_cannot_deliver_for_the_one_that_claimed(world):
    job, _ = claimed(world)
    world.deliver(job, 1, world.enrol("fig"))
    refused(world, "claimed by another worker than fig")
    assert world.state(job) is State.RUNNING


def test_a_result_of_an_attempt_that_was_never_given_out_is_rejected(world):
    job, run = claimed(world)
    world.deliver(job, 2, run)
    refused(world, "never given out")


def test_a_result_for_no_job_is_rejected(world):
    world.deliver(world.new_name(), 1, world.enrol())
    refused(world, "no job")


def test_each_truncation_of_a_delivery_is_rejected(world):
    job, run = claimed(world)
    whole = world.delivery(job, 1, run)
    for length in range(0, len(whole), 61):
        world.drop(layout.RESULTS, names.claim_name(job, 1, "result"), whole[:length])
        world.settle_down()
        assert world.state(job) is State.RUNNING, length
    world.drop(layout.RESULTS, names.claim_name(job, 1, "result"), whole)
    world.settle_down()
    assert world.state(job) is State.DONE


def test_a_delivery_sent_twice_is_served_once(world):
    job, run = claimed(world)
    for _ in range(3):
        world.deliver(job, 1, run)
        world.settle_down()
    assert "late.1" not in world.parts(job)
    assert world.files.names("results") == []


def test_a_second_result_never_replaces_the_first(world):
    job, run = claimed(world)
    world.deliver(job, 1, run)
    world.settle_down()
    before = world.parts(job)
    world.deliver(job, 1, run, parts={"result": b"something else"})
    world.settle_down()
    after = world.parts(job)
    assert {name: data for name, data in after.items() if name != "late.1"} == before


def test_a_silent_worker_is_found_out_whatever_else_enrols(world):
    job, run = claimed(world)
    world.silent.add(run)
    for _ in range(16):
        world.pass_time(LEASE / 12)
        world.enrol("fig")
    assert world.state(job) is State.QUEUED


def test_a_long_chain_that_is_dropped_at_once_is_accepted_whole(world):
    """One look takes some hundred names in any order: who waits may be seen before whom it waits for."""
    jobs: list[str] = []
    while len(jobs) < 900:
        jobs.append(world.new_name())
    after = {job: (jobs[number - 1],) if number else () for number, job in enumerate(jobs)}
    for job in reversed(jobs):
        world.submit(job=job, after=after[job])
    world.settle_down()
    assert {world.state(job) for job in jobs} == {State.QUEUED}

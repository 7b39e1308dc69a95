"""What a person is told of a job's end is bound to that job: a hostile host swaps nothing."""

from __future__ import annotations

import pickle

import pytest

from dsage_spool import layout
from dsage_spool.client.job import Job
from dsage_spool.client.session import Session
from dsage_spool.errors import BadSignature, JobFailed, SpoolError
from dsage_spool.states import State
from memory_files import MemoryFiles
from spool_world import PEOPLE, WORKERS, FakeClock, World

UNPICKLED: list[str] = []


class Trap:
    """A value that tells when it is unpickled."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __reduce__(self):
        return _spring, (self.word,)


def _spring(word: str) -> str:
    UNPICKLED.append(word)
    return word


class Desk:
    """alice's session, with two jobs that are done and one that has failed."""

    def __init__(self) -> None:
        clock = FakeClock()
        self.world = World(MemoryFiles(clock.wall), clock)
        self.world.start_server()
        self.files = self.world.files
        self.session = self.new_session()
        self.run = self.world.enrol()
        self.mine = self.ended("mine")
        self.other = self.ended("other")
        self.bad = self.ended("bad", "raised")

    def new_session(self) -> Session:
        return Session(self.files, PEOPLE["alice"], "alice", clock=self.world.clock)

    def ended(self, word: str, outcome: str = "ok") -> Job:
        job = self.session.submit(str, word)
        self.end(job, word, outcome)
        return job

    def end(self, job: Job, word: str, outcome: str = "ok") -> None:
        world, word = self.world, f"result of {word}"
        world.settle_down()
        world.texts[job.id] = world.parts(job.id)["envelope"]
        world.claim(self.run, job.id)
        parts = {"result": pickle.dumps(Trap(word)), "stdout": f"{word}\n".encode(), "stderr": b""}
        if outcome != "ok":
            parts = {"traceback": b"Traceback: no\n", "stdout": b"", "stderr": b""}
        codec = "pickle" if outcome == "ok" else ""
        world.deliver(job.id, 1, self.run, outcome, parts=parts, codec=codec)
        world.settle_down()

    def copy(self, *parts: str) -> None:
        """From the other job's folder into that of mine."""
        for part in parts:
            self.put(part, self.files.read(self.path(part, self.other), 1 << 20))

    def put(self, part: str, data: bytes) -> None:
        self.files.write(self.path(part, self.mine), data)

    def path(self, part: str, job: Job) -> str:
        return layout.in_job(State.DONE, job.id, part)

    def move(self, job: Job, source: State, end: State) -> None:
        self.files.move(layout.job_folder(source, job.id), layout.job_folder(end, job.id))


@pytest.fixture
def desk():
    UNPICKLED.clear()
    return Desk()


@pytest.fixture(params=["of the session that submitted it", "taken up again"])
def mine(desk, request):
    """The job as alice knows it: with the hash of its envelope in memory, or only by its name."""
    if request.param == "taken up again":
        return desk.new_session().job(desk.mine.id)
    return desk.mine


RECEIPT = (layout.RECEIPT, layout.RECEIPT_SIGNATURE)
SWAPS = [
    RECEIPT,
    (*RECEIPT, layout.RESULT),
    (*RECEIPT, layout.RESULT, layout.STDOUT, layout.STDERR, layout.VERDICT),
    (layout.RECEIPT,),
    (layout.RECEIPT_SIGNATURE,),
    (layout.RESULT,),
]
OUTPUTS = [(layout.STDOUT,), (*RECEIPT, layout.STDOUT, layout.STDERR)]


def test_what_nobody_has_touched_is_taken(desk, mine):
    assert mine.result() == "result of mine" and UNPICKLED == ["result of mine"]
    assert mine.output()[0] == "result of mine\n" and mine.receipt().worker == "kiwi"


@pytest.mark.parametrize("parts", SWAPS, ids=" ".join)
def test_parts_of_another_jobs_end_are_refused_before_a_byte_is_unpickled(desk, mine, parts):
    desk.copy(*parts)
    with pytest.raises(BadSignature):
        mine.result()
    assert UNPICKLED == []


def test_a_whole_folder_of_another_job_is_refused(desk):
    desk.copy(*desk.files.names(layout.job_folder(State.DONE, desk.other.id)))
    again = desk.new_session().job(desk.mine.id)
    for job in (desk.mine, again):
        with pytest.raises(BadSignature):
            job.result()
    assert UNPICKLED == []


def test_a_result_that_the_worker_never_sent_is_refused(desk, mine):
    desk.put(layout.RESULT, pickle.dumps(Trap("forged")))
    with pytest.raises(BadSignature, match="sha256"):
        mine.result()
    assert UNPICKLED == []


@pytest.mark.parametrize("parts", OUTPUTS, ids=" ".join)
def test_output_of_another_job_is_refused(desk, mine, parts):
    desk.copy(*parts)
    with pytest.raises(BadSignature):
        mine.output()


def test_output_that_nobody_swears_to_is_refused(desk, mine):
    for part in RECEIPT:
        desk.files.remove(desk.path(part, desk.mine))
    desk.put(layout.STDOUT, b"forged\n")
    with pytest.raises(SpoolError, match="receipt"):
        mine.output()


@pytest.mark.parametrize("with_result", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_a_failed_job_that_the_host_calls_done_is_refused(desk, with_result, again):
    desk.move(desk.bad, State.FAILED, State.DONE)
    if with_result:
        desk.files.write(desk.path(layout.RESULT, desk.bad), pickle.dumps(Trap("forged")))
    session = desk.new_session()  # the first one was told by the journal that it has failed
    job = session.job(desk.bad.id)
    if not again:
        session._mine.update(desk.session._mine)
    with pytest.raises(BadSignature, match="is done, but its receipt says raised"):
        job.result()
    assert UNPICKLED == []


def test_a_done_job_that_the_host_calls_failed_has_no_receipt_to_say_so(desk):
    desk.move(desk.mine, State.DONE, State.FAILED)
    job = desk.new_session().job(desk.mine.id)
    with pytest.raises(JobFailed):
        job.result()
    with pytest.raises(BadSignature, match="is failed, but its receipt says ok"):
        job.receipt()
    assert UNPICKLED == []


def test_a_receipt_of_another_workers_run_is_rejected_by_the_server(desk):
    world = desk.world
    job = world.submit()
    world.settle_down()
    world.claim(desk.run, job)
    world.settle_down()
    world.deliver(job, 1, "fig.00000000", worker="kiwi", signer=WORKERS["kiwi"])
    world.settle_down()
    assert world.state(job) is State.RUNNING
    assert [text for text in world.verdicts() if "another worker's run" in text]


def test_map_submits_before_anybody_asks_for_a_result(desk):
    before = set(desk.files.names(layout.INCOMING))
    results = desk.session.map(str, ["one", "two", "three"])
    assert len(set(desk.files.names(layout.INCOMING)) - before) == 3
    assert iter(results) is results


def test_map_answers_in_the_order_of_its_inputs(desk):
    results = desk.session.map(str, ["one", "two"])
    names = sorted(name.removesuffix(".job") for name in desk.files.names(layout.INCOMING))
    for name, word in reversed(list(zip(names, ["one", "two"]))):
        desk.end(desk.session.job(name), word)
    assert list(results) == ["result of one", "result of two"]


def test_requests_of_one_person_are_served_in_the_order_in_which_they_were_made(desk):
    job = desk.session.submit_source("2+2").id
    desk.world.settle_down()
    for verb in ("hold", "release", "hold", "release", "hold"):
        desk.session.request([job], verb)
        desk.world.clock.now += 0.001
    desk.world.settle_down()
    assert desk.world.state(job) is State.HELD
    desk.session.request([job], "release")
    desk.session.request([job], "cancel")
    desk.world.settle_down()
    assert desk.world.state(job) is State.CANCELLED

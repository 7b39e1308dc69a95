"""The shipped parties as processes of a simulated world; and one who forges."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dsage_spool import layout, names, pack
from dsage_spool.client.compose import Options, SignedJob, Work, source_work
from dsage_spool.client.job import Job
from dsage_spool.client.session import Session
from dsage_spool.errors import JobCancelled, JobFailed, SpoolError, UnknownJob, WaitTimeout
from dsage_spool.files import Files
from dsage_spool.records import Worker
from dsage_spool.server.serve import AFTER_FAILURE, Server
from dsage_spool.states import State
from dsage_spool.worker.deliver import Deliveries
from dsage_spool.worker.limits import Limits
from dsage_spool.worker.monitor import Monitor
from dsage_spool.worker.outbox import Outbox

from .doors import HostFiles, Slots, Wake
from .machines import Process, SimClock, Threads
from .oracle import Expected

if TYPE_CHECKING:
    from .world import World


def spool_files(world: World, process: Process, local: bool) -> Files:
    if local:
        return HostFiles(process, world.disk, lambda: world.trouble)
    return world.network.connect(process)


_GIVEN_UP = re.compile(r"worker (\S+): not heard for")

# -- the server --------------------------------------------------------------------------------------


class ServerFiles(HostFiles):
    """Tells the oracle when the server looks at a heartbeat."""

    looked_at: Any = None

    def stat(self, path: str) -> Any:
        found = super().stat(path)
        if path.startswith(layout.WORKERS):
            self.looked_at(path.rpartition("/")[2])
        return found


def serve(world: World, process: Process) -> None:
    files = ServerFiles(process, world.disk, lambda: world.trouble)
    files.looked_at = world.oracle.looked_at

    def log(text: str) -> None:
        world.sim.tell("server", f"log: {text}")
        if lost := _GIVEN_UP.match(text):
            world.oracle.expired(lost[1], world.weather.lease)

    server = Server(files, SimClock(process), world.chance.randbytes, log, name="box 1")
    wake = Wake(process, world.weather.events_lost)
    world.oracle.on_drop = wake.notice
    server.open()
    world.oracle.check_matrix(server.book.unreadable)

    class Checked:
        """Between two passes the tree must be as docs/format.md says."""

        def wait(self, timeout: float) -> None:
            if timeout != AFTER_FAILURE:
                world.oracle.check_matrix(server.book.unreadable)
            wake.wait(timeout)

    server.run(Checked(), lambda: False)


# -- workers -----------------------------------------------------------------------------------------


def work(world: World, process: Process, name: str, slots: int, local: bool, cron: bool) -> None:
    process.stopping = False
    oracle, sim = world.oracle, world.sim

    def log(text: str) -> None:
        sim.tell(name, f"log: {text}")

    def began(task: Any, submitter: str) -> None:
        oracle.began(task.job, task.attempt, f"{name} {id(process)}"[: len(name)], submitter)

    children = Slots(process, slots, began)
    outbox = Outbox(HostFiles(process, world.own_disks[name]), log)
    monitor = Monitor(
        lambda: spool_files(world, process, local),
        SimClock(process),
        world.chance.randbytes,
        children,
        Deliveries(outbox, world.signers[name]),
        Worker(name, "", host=process.machine.name, slots=slots),
        Limits(once=cron),
        log,
        longest_wait=1.0 if local else 2.0,
        threads=Threads(process),
    )
    monitor.run(lambda: process.stopping)
    children.close()


# -- clients -----------------------------------------------------------------------------------------


class WatchedSession(Session):
    """Tells the oracle of each job that is signed, acknowledged or not."""

    oracle: Any = None

    def _sign(self, work: Work, options: Options) -> SignedJob:
        signed = super()._sign(work, options)
        seconds, value, what = work.payload.decode().split()
        known = Expected(
            self.user, int(value), what, options.attempts, float(seconds), options.after,
            {layout.ENVELOPE: signed.envelope, layout.PAYLOAD: signed.payload},
        )  # fmt: skip
        self.oracle.submitted(signed.job, known)
        return signed


class Client:
    """One person: submits what is planned, asks for this and that, and collects every result.

    What a client knows survives its kill, as its ledger does.
    """

    def __init__(self, world: World, owner: str, local: bool, count: int) -> None:
        self.world, self.owner, self.local = world, owner, local
        self.to_submit, self.jobs, self.collected = count, [], set()

    def main(self, process: Process) -> None:
        clock, chance = SimClock(process), self.world.chance
        while self.owner in self.world.unfinished:
            try:
                self._live(process, clock)
            except (JobFailed, JobCancelled):
                raise
            except SpoolError as error:
                self.world.sim.tell(self.owner, f"tries again after: {error.message}")
                clock.sleep(chance.uniform(0.5, 2))

    def _live(self, process: Process, clock: SimClock) -> None:
        files = spool_files(self.world, process, self.local)
        session = WatchedSession(
            files, self.world.signers[self.owner], self.owner, clock=clock,
            random=self.world.chance.randbytes,
        )  # fmt: skip
        session.oracle = self.world.oracle
        while self.to_submit:
            self._submit(session)
            clock.sleep(self.world.chance.choice((0.0, 0.0, 1.0, 8.0)))
        self._collect(session)
        self.world.unfinished.discard(self.owner)
        session.close()

    # -- submit --------------------------------------------------------------------------------

    def _submit(self, session: Session) -> None:
        chance = self.world.chance
        count = chance.randint(1, self.to_submit)
        works = [source_work(self._payload()) for _ in range(count)]
        after = tuple(chance.sample(self.jobs, 1)) if self.jobs and chance.random() < 0.2 else ()
        options = Options(
            attempts=chance.choice((1, 2, 3, 3)), priority=chance.choice((0, 0, 5)), after=after
        )
        self._note(session, works, options)
        if chance.random() < 0.25:
            self._ask(session, chance.choice(self.jobs), chance.choice(("cancel", "hold", "hold")))

    def _note(self, session: Session, works: list[Work], options: Options) -> None:
        for job in session.submit_all(works, options):
            self.world.oracle.acknowledged(job.id)
            self.jobs.append(job.id)
            self.to_submit -= 1

    def _payload(self) -> str:
        chance = self.world.chance
        seconds = chance.choice((0.01, 0.5, 3.0, 1.5 * self.world.weather.lease))
        kinds = ("ok", "ok", "ok", "raises", "kills" if self.world.weather.poison else "ok")
        return f"{seconds} {chance.randrange(10**6)} {chance.choice(kinds)}"

    def _ask(self, session: Session, job: str, verb: str) -> None:
        # Noted first: a request that is cut off may have arrived.
        self.world.oracle.jobs[job].asked.add(verb)
        session.request([job], verb)

    # -- collect -------------------------------------------------------------------------------

    def _collect(self, session: Session) -> None:
        jobs = [session.job(name) for name in self.jobs if name not in self.collected]
        while jobs:
            try:
                for job in session.as_completed(jobs, timeout=10.0, fetch=True):
                    self._take(job)
                    self.collected.add(job.id)
                return
            except WaitTimeout:
                jobs = [job for job in jobs if job.id not in self.collected]
                for job in jobs:
                    self._free(session, job)

    def _free(self, session: Session, job: Job) -> None:
        if session.state(job.id) is State.HELD:
            self._ask(session, job.id, "release")

    def _take(self, job: Job) -> None:
        try:
            self.world.oracle.collected(job.id, job.result(1.0))
        except (JobFailed, JobCancelled) as error:
            self.world.sim.tell(self.owner, f"told: {error.message}")
        except UnknownJob as error:
            self.world.oracle.fail(f"{job.id}: a client is told {error.message}")


# -- one who forges ------------------------------------------------------------------------------------


def forge(world: World) -> None:
    """Somebody with access to the drop boxes, and no key that counts."""
    chance = world.chance
    tricks = (_forged_job, _altered_job, _forged_result, _replay, _rubbish, _swapped, _kept_open)
    trick = chance.choice(tricks)
    world.sim.tell("mallory", trick.__name__)
    trick(world)


def _put(world: World, path: str, data: bytes) -> None:
    world.oracle.forged.add(path.rpartition("/")[2])
    try:
        world.disk.write(f"{layout.TMP}/mallory", data)
        world.disk.move(f"{layout.TMP}/mallory", path)
    except SpoolError:
        pass  # a folder lies there


def _some(world: World, *folders: str) -> list[tuple[str, bytes]]:
    """Files of ended and live jobs: name and content of folders, whole."""
    root = world.disk.root.entries
    return [
        (job, {name: inode.data for name, inode in folder.entries.items()})
        for state in folders
        for job, folder in root[state].entries.items()
        if names.is_job(job)
    ]


def _forged_job(world: World) -> None:
    from dsage_spool.client.compose import JobNames, compose

    fresh = JobNames(world.box.wall, world.chance.randbytes).new()
    signer = world.signers[world.chance.choice(("mallory", "bob", "kiwi"))]
    made = compose(source_work("0.1 666 ok"), Options(), world.settings.id, "alice", signer, fresh)
    _drop_job(world, made.job, made.envelope, made.signature.encode(), made.payload)


def _drop_job(world: World, job: str, envelope: bytes, signature: bytes, payload: bytes) -> None:
    parts = {"envelope": envelope, "envelope.sig": signature, "payload": payload}
    _put(world, layout.drop(job), pack.join(parts))


def _kept_open(world: World) -> None:
    """Somebody who may submit keeps a job file open, and writes into it again after it was dropped."""
    from dsage_spool.client.compose import JobNames, compose

    fresh = JobNames(world.box.wall, world.chance.randbytes).new()
    made = compose(
        source_work("0.1 5 ok"), Options(), world.settings.id, "bob", world.signers["bob"], fresh
    )
    signed = {layout.ENVELOPE: made.envelope, layout.PAYLOAD: made.payload}
    world.oracle.submitted(fresh, Expected("bob", 5, "ok", 3, 0.1, signed=signed))
    _drop_job(world, fresh, made.envelope, made.signature.encode(), made.payload)
    inode = world.disk.root.entries[layout.INCOMING].entries[f"{fresh}.job"]

    def write_again() -> None:
        inode.data = inode.data.replace(b"0.1 5 ok", b"0.1 6 ok")

    world.sim.after(world.chance.choice((0.0, 0.001, 0.01, 1.0)) * world.chance.random(), write_again)


def _altered_job(world: World) -> None:
    """A real job under another name: only its signature does not fit."""
    for job, parts in _some(world, "queued", "running", "done")[:1]:
        other = names.make_job(world.box.wall(), world.chance.randbytes(4))
        envelope = parts["envelope"].replace(job.encode(), other.encode())
        _drop_job(world, other, envelope, parts["envelope.sig"], parts["payload"])


def _forged_result(world: World) -> None:
    """Signed by somebody who is not that worker, for an attempt that runs now."""
    import hashlib

    from dsage_spool.children import Ended
    from dsage_spool.worker.deliver import make_delivery

    for job, parts in _some(world, "running", "queued")[:1]:
        run = names.run_name("kiwi", names.make_nonce(world.chance.randbytes(5)))
        worker = Worker("kiwi", run, host="x")
        ended = Ended(job, 1, "ok", codec="pickle", parts={"result": b"I666\n."})
        digest = hashlib.sha256(parts["envelope"]).hexdigest()
        signer = world.signers[world.chance.choice(("mallory", "bob", "fig"))]
        data = make_delivery(ended, worker, world.settings.id, digest, signer)
        _put(world, layout.result(job, 1), data)


def _replay(world: World) -> None:
    """An ended or running job is dropped once more, as it was."""
    some = _some(world, "done", "failed", "cancelled", "running", "queued")
    if some:
        job, parts = world.chance.choice(some)
        if {"envelope", "envelope.sig", "payload"} <= parts.keys():
            _drop_job(world, job, parts["envelope"], parts["envelope.sig"], parts["payload"])


def _swapped(world: World) -> None:
    """The true result of one job, under the name of another."""
    done, running = _some(world, "done"), _some(world, "running", "queued")
    if done and running:
        _, parts = world.chance.choice(done)
        delivery = {n: parts[n] for n in ("receipt", "receipt.sig", "result", "stdout") if n in parts}
        _put(world, layout.result(world.chance.choice(running)[0], 1), pack.join(delivery))


def _rubbish(world: World) -> None:
    box = world.chance.choice((layout.INCOMING, layout.RESULTS, layout.LOCKS))
    name = world.chance.choice(("x", "-rf", "a\x1b]0;b", f"{'z' * 30}.job", "20261122T232140-4k2m7qx9ab.job"))
    if name in world.disk.root.entries[box].entries:
        return
    if world.chance.random() < 0.3:
        world.disk.add_other(f"{box}/{name}")
    else:
        _put(world, f"{box}/{name}", world.chance.randbytes(40))

"""Whoever is killed, and whenever: an acknowledged job ends exactly once, with the right value."""

from __future__ import annotations

from collections import Counter

import pytest

from dsage_spool import names
from parties import LONG, SHORT, World, wait_until

SUBMIT = """
from parties import counted
job = session.submit(counted, sys.argv[1], 42)
print(job.id, flush=True)
print(job.result(), flush=True)
"""


def acknowledged(client) -> str:
    """The job that the client was told to be safe."""
    wait_until(lambda: client.out.endswith("\n"), f"the client has submitted: {client.err}")
    return client.out.split()[0]


def bring_to(world: World, moment: str) -> tuple[dict, str]:
    """All three parties at work, and a job that has come just so far."""
    server, worker = world.server(), world.worker()
    if moment == "incoming":
        server.freeze()
    elif moment == "queued":
        worker.freeze()
    client = world.client(SUBMIT, str(world.root))
    job = acknowledged(client)
    if moment == "running":
        world.wait_for_mark(job)
    else:
        world.wait_for(job, moment)
    return {"server": server, "worker": worker, "client": client}, job


def kill_and_replace(world: World, parties: dict, victim: str) -> None:
    """kill -9; whoever was frozen goes on; a server or worker is started again, as systemd would."""
    parties[victim].kill()
    for name, party in parties.items():
        if name != victim:
            party.thaw()
    if victim == "server":
        world.server()
    elif victim == "worker":
        world.worker()


@pytest.mark.parametrize("victim", ["server", "worker", "client"])
@pytest.mark.parametrize("moment", ["incoming", "queued", "running"])
def test_an_acknowledged_job_ends_exactly_once(tmp_path, victim, moment):
    lost_at_work = (victim, moment) == ("worker", "running")
    world = World(tmp_path, lease=SHORT if lost_at_work else LONG)
    try:
        parties, job = bring_to(world, moment)
        kill_and_replace(world, parties, victim)
        if lost_at_work:
            wait_until(lambda: len(world.marks(job)) == 2, "the job is run again")
        world.open_gate()
        world.check_ended_once(job)
        assert world.value(job) == 42
        assert len(world.marks(job)) == (2 if lost_at_work else 1)
        if victim != "client":
            assert parties["client"].end() == 0 and parties["client"].out.split()[1] == "42"
    finally:
        world.close()


@pytest.mark.parametrize("victim", ["server", "worker"])
def test_a_result_that_was_delivered_but_not_settled_is_not_lost(world, victim):
    parties, job = bring_to(world, "running")
    parties["server"].freeze()
    world.open_gate()
    wait_until(lambda: (world.spool / f"results/{job}.1.result").exists(), "it is delivered")
    kill_and_replace(world, parties, victim)
    world.check_ended_once(job)
    assert world.value(job) == 42
    assert len(world.marks(job)) == 1


def test_a_client_killed_while_it_submits_has_lost_and_torn_nothing(world):
    world.open_gate()
    world.server(), world.worker()
    client = world.client(
        "from parties import counted\n"
        "for number in range(200):\n"
        "    print(session.submit(counted, sys.argv[1], number).id, flush=True)\n",
        str(world.root),
    )
    wait_until(lambda: client.out.count("\n") > 60, f"60 jobs are submitted: {client.err}")
    client.kill()
    told = [line.strip() for line in client.out.splitlines(True) if line.endswith("\n")]
    assert len(told) < 200, "the client was too quick for this test"
    for number, job in enumerate(told):
        world.wait_for(job, "done")
        assert f"{job} 1 {number}" in world.marks(job)
    check_nothing_torn(world)


def test_a_client_killed_while_it_submits_a_batch_has_torn_nothing(world):
    world.open_gate()
    world.server(), world.worker()
    client = world.client(
        "from parties import counted\n"
        "from dsage_spool.client.compose import call_work\n"
        "works = [call_work(counted, (sys.argv[1], number), {}) for number in range(200)]\n"
        "print('go', flush=True)\n"
        "session.submit_all(works)\n",
        str(world.root),
    )
    wait_until(lambda: client.out, f"it begins to submit: {client.err}")
    wait_until(lambda: any((world.spool / "tmp").iterdir()) or not client.running, "it writes")
    client.kill()
    check_nothing_torn(world)


def check_nothing_torn(world: World) -> None:
    """All that came in was whole, and has run once; what had not come is still not there."""
    wait_until(lambda: not list((world.spool / "incoming").glob("*.job")), "all is accepted")
    live = ("queued", "running")
    wait_until(lambda: not [1 for s in live for p in (world.spool / s).iterdir() if p.is_dir()],
               "all have run")  # fmt: skip
    done = {path.name for path in (world.spool / "done").iterdir() if names.is_job(path.name)}
    runs = Counter(line.split()[0] for line in world.marks())
    assert runs == dict.fromkeys(done, 1)
    for state in ("rejected", "failed", "cancelled"):
        assert [path.name for path in (world.spool / state).iterdir()] == [".keep"]

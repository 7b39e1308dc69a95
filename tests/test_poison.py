"""A job that takes its worker down with it: tried so many times, then never again."""

from __future__ import annotations

import sys

import cloudpickle

from dsage_spool import Options
from parties import counted, wait_until

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # slots cannot import tests


def poison(folder: str) -> None:
    """Kill the worker: the parent of the slot that is this process's parent."""
    import os
    import signal
    import time

    opened = os.open(f"{folder}/marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    mark = f"{os.environ['DSAGE_SPOOL_JOB']} {os.environ['DSAGE_SPOOL_ATTEMPT']}\n"
    os.write(opened, mark.encode())
    with open(f"/proc/{os.getppid()}/stat") as stat:
        os.kill(int(stat.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
    time.sleep(600)


def test_a_job_that_kills_its_worker_ends_in_failed_after_its_attempts(hasty_world):
    world = hasty_world
    world.server()
    options = Options(attempts=2)
    job = world.session().submit_call(poison, (str(world.root),), options=options).id
    workers = []

    def buried_while_workers_are_replaced() -> bool:
        if not workers or not workers[-1].running:
            workers.append(world.work("desk"))
        return world.where(job) == ["failed"]

    wait_until(buried_while_workers_are_replaced, "the job is buried")
    world.check_ended_once(job, "failed")
    assert [line.split()[1] for line in world.marks(job)] == ["1", "2"]
    assert "failed: lost 2 times, the last time by desk: " in world.verdict(job)
    assert len(workers) == 3, "two were killed, and the third lives"

    after = world.session().submit_call(counted, (str(world.root), "fine")).id
    world.open_gate()
    world.check_ended_once(after)
    assert world.value(after) == "fine"
    assert len(world.marks(job)) == 2


def fine(folder: str) -> str:
    """The neighbour: its first attempt runs until the worker dies, its second ends at once."""
    import os
    import time

    opened = os.open(f"{folder}/marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    attempt = os.environ["DSAGE_SPOOL_ATTEMPT"]
    os.write(opened, f"{os.environ['DSAGE_SPOOL_JOB']} {attempt}\n".encode())
    if attempt == "1":
        time.sleep(600)
    return "fine"


def poison_beside(folder: str, neighbour: str) -> None:
    """Kill the worker; the first time, as soon as the neighbour runs too."""
    import os
    import time

    while os.environ["DSAGE_SPOOL_ATTEMPT"] == "1":
        with open(f"{folder}/marks", "a+") as marks:
            marks.seek(0)
            if neighbour in marks.read():
                break
        time.sleep(0.02)
    poison(folder)


def test_an_innocent_neighbour_of_a_poison_job_is_lost_once_and_ends_well(hasty_world):
    world = hasty_world
    session, options = world.session(), Options(attempts=2)
    innocent = session.submit_call(fine, (str(world.root),), options=options).id
    arguments = (str(world.root), innocent)
    deadly = session.submit_call(poison_beside, arguments, options=options).id
    world.server()
    workers = []

    def both_have_ended_while_the_worker_is_replaced() -> bool:
        if not workers or not workers[-1].running:
            workers.append(world.work("desk", "--slots", "2"))
        return world.where(deadly) == ["failed"] and world.where(innocent) == ["done"]

    wait_until(both_have_ended_while_the_worker_is_replaced, "both have ended")
    world.check_ended_once(deadly, "failed")
    world.check_ended_once(innocent)
    assert [line.split()[1] for line in world.marks(deadly)] == ["1", "2"]
    assert [line.split()[1] for line in world.marks(innocent)] == ["1", "2"]
    assert world.value(innocent) == "fine"
    assert len(workers) == 3, "two were killed, and the third lives"

"""What must never happen, over a whole run with real processes: listening, unpickling in the wrong
place, paying for what is not used, handing credentials to jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cloudpickle

from parties import World, wait_until

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # slots cannot import tests

PICKLERS = {"pickle", "_pickle", "cloudpickle", "dill"}
HEAVY = {"paramiko", "sympy", "rich", "cryptography", "watchdog", "filelock", "cloudpickle", "numpy"}
IMPORT_TIME = ("-X", "importtime")


def imported(told: str) -> set[str]:
    """All modules that a process has imported, by what -X importtime says."""
    lines = [line for line in told.splitlines() if line.startswith("import time:")]
    modules = {line.rpartition("|")[2].strip() for line in lines}
    assert "dsage_spool" in modules, "the process tells what it imports"
    return modules


def roots(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_the_server_never_imports_what_unpickles(world):
    server = world.server(python=IMPORT_TIME)
    world.worker()
    world.open_gate()
    job = world.submit_counted()
    world.check_ended_once(job.id)
    doomed = world.submit_counted(not_after=1)  # refused
    world.check_ended_once(doomed.id, "rejected")
    assert server.stop() == 0
    modules = imported(server.err)
    assert not roots(modules) & (PICKLERS | {"paramiko", "sympy", "rich"})
    assert not {name for name in modules if name.startswith("dsage_spool.runner")}
    assert "dsage_spool.payload" not in modules


def test_the_worker_itself_never_imports_what_unpickles(world):
    world.server()
    world.open_gate()
    job = world.submit_counted()
    world.wait_for(job.id, "queued")
    pull = world.work("desk", verb="pull", python=IMPORT_TIME)
    assert pull.end() == 0
    world.check_ended_once(job.id)
    modules = imported(pull.err)
    assert not roots(modules) & (PICKLERS | {"paramiko", "sympy", "rich"})
    assert "dsage_spool.payload" not in modules


def test_importing_the_package_takes_nothing_heavy():
    text = "import sys; before = set(sys.modules); import dsage_spool; "
    text += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    assert not {name.partition(".")[0] for name in done.stdout.split()} & (HEAVY | PICKLERS)
    ours = [name for name in done.stdout.split() if name.startswith("dsage_spool")]
    assert ours == ["dsage_spool"]


def test_status_of_a_local_spool_pays_neither_for_ssh_nor_for_algebra(world):
    status = world.run("status", "--json", "--spool", str(world.spool), python=IMPORT_TIME)
    assert status.end() == 0, status.err
    assert not roots(imported(status.err)) & {"paramiko", "sympy", "cloudpickle", "rich"}


# -- sockets ---------------------------------------------------------------------------------


def listening() -> set[str]:
    """The inodes of all listening sockets of this machine."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                inodes.add(words[9])
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[3], 16) & 0x10000:  # __SO_ACCEPTCON
            inodes.add(words[6])
    return inodes


def sockets(pid: int) -> set[str]:
    try:
        links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def listeners(world: World) -> set[int]:
    heard = listening()
    return {pid for pid in world.processes() if sockets(pid) & heard}


def test_nobody_ever_listens(world):
    world.server(), world.worker()
    found: set[int] = set()
    seen: set[int] = set()

    def done() -> bool:
        found.update(listeners(world))
        seen.update(world.processes())
        return world.where(job) == ["done"]

    job = world.submit_counted().id
    world.run("result", "--spool", str(world.spool), job)
    wait_until(lambda: done() or world.marks(job), "it runs")
    done()
    world.open_gate()
    wait_until(done, "it is done")
    assert len(seen) >= 5, "server, worker, slot, job and client were looked at"
    assert not found


def test_the_look_for_listeners_finds_one(world):
    text = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print('on', flush=True)"
    party = world.client(text + "; time.sleep(600)")
    wait_until(lambda: party.out, "it listens")
    assert listeners(world) == {party.pid}


# -- credentials -----------------------------------------------------------------------------

SECRETS = {
    "SSH_AUTH_SOCK": "/nowhere/agent", "DSAGE_SPOOL_KEY": "/nowhere/key",
    "AWS_SECRET_ACCESS_KEY": "hush", "KRB5CCNAME": "/nowhere/ticket",
}  # fmt: skip


def surroundings() -> dict:
    """A job: what it and its slot were given."""
    import os

    told = {"now": "\n".join(f"{name}={value}" for name, value in os.environ.items())}
    for name, pid in (("self", "self"), ("slot", os.getppid())):
        with open(f"/proc/{pid}/environ", "rb") as file:
            told[name] = file.read().decode()
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return {**told, "open": "\n".join(links)}


def test_a_job_has_no_credentials_in_its_environment(world):
    world.server(), world.worker(**SECRETS)
    job = world.session().submit(surroundings)
    told = job.result(60)
    for name, value in SECRETS.items():
        for place in ("now", "self", "slot"):
            assert name not in told[place] and value not in told[place]
    assert "socket:" not in told["open"]
    assert str(world.spool) not in told["open"] and ".config" not in told["open"]

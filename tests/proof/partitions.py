"""Real parties over real SSH between network namespaces, while everything that can happen to a lab
happens: cuts, freezes, kills, a reboot of the box, a worker that never comes back.

The story is drawn from a seed; processes and kernels add chance of their own, so a seed replays the
faults and not the microseconds. A violation comes with the whole story.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Callable

from dsage_spool.states import JOB_FOLDERS
from parties import Party, World, wait_until
from ssh_world import SshWorld
from sshd import Sshd

from . import live_client
from .promises import Outcome
from .hosts import Hosts, why_not

LEASE = 6.0  # seconds
RESIDENT, CRON = ("oak", "elm", "ash"), "fir"  # elm goes for good half way
HOSTS = ["box", *RESIDENT, CRON, "desk"]
PLANS = {"quick": (12, 60), "full": (64, 400)}  # faults, jobs
BOUND = 240.0  # seconds that a calm lab may take to end everything


class HostSshd(Sshd):
    """sshd inside a namespace; it is ready when it says so, since nobody outside can reach it."""

    def __init__(self, folder: Path, hosts: Hosts) -> None:
        self.address, self.before = hosts.address("box"), hosts.inside("box")
        super().__init__(folder, Subsystem="sftp internal-sftp")

    def _wait_until_it_listens(self) -> None:
        log, begin = self.folder / "sshd.log", self._told
        wait_until(lambda: "Server listening" in log.read_text()[begin:], "sshd listens")

    def start(self) -> None:
        log = self.folder / "sshd.log"
        self._told = len(log.read_text()) if log.exists() else 0
        super().start()


class Lab(SshWorld):
    """A box and its workers and a client, each on a host of its own."""

    def __init__(self, root: Path, environ: dict[str, str] | None = None) -> None:
        World.__init__(self, root, LEASE)
        self.hosts = Hosts(HOSTS)
        self.environ = environ or {}
        self.running: dict[str, Party] = {}
        (root / "sshd").mkdir()
        try:
            self.sshd = HostSshd(root / "sshd", self.hosts)
            self.place = f"spoolhost:{self.spool}"
            self.ssh = {"DSAGE_SPOOL_SSH_CONFIG": str(self.sshd.config)}
            for name in (*RESIDENT, CRON):
                self._enter(name)
        except BaseException:
            self.hosts.close()
            raise

    def _started(self, argv: list[str], home: str, environ: dict) -> Party:
        host = {"alice": "desk", "server": "box"}.get(home, home)
        return super()._started([*self.hosts.inside(host), *argv], home, {**self.environ, **environ})

    def start(self, name: str) -> None:
        """A party by its name; it must have ended before."""
        if name == "server":
            self.running[name] = self.run("server", str(self.spool), "--quiet", home="server")
        elif name == "client":
            self.running[name] = self._client()
        else:
            verb = "pull" if name == CRON else "worker"
            self.running[name] = self.run(
                verb, self.place, "--slots", "2", "--nice", "0", "--name", name, home=name, **self.ssh
            )

    def _client(self) -> Party:
        tests = str(Path(live_client.__file__).parent.parent)
        words = ["-m", "proof.live_client", self.place, str(self.root), str(self.jobs)]
        import sys

        return self._started(
            [sys.executable, *words], "alice", {"PYTHONPATH": tests, **self.ssh}
        )

    def begin(self, jobs: int) -> None:
        self.jobs = jobs
        for name in ("server", *RESIDENT, CRON, "client"):
            self.start(name)

    def tend(self) -> None:
        """What systemd and cron do: a party that has ended by itself is started again."""
        for name, party in list(self.running.items()):
            if not party.running and not (name == "client" and party.end() == 0):
                self.start(name)

    def close(self) -> None:
        try:
            for party in self.parties:
                party.thaw()
            super().close()
        finally:
            self.hosts.close()


class Trouble:
    """Faults of one lab, in the order of the seed; `story` tells them."""

    def __init__(self, lab: Lab, chance: Random) -> None:
        self.lab, self.chance, self.story = lab, chance, []
        self._began = time.monotonic()
        self._kinds: list[Callable[[], None]] = [
            self.cut, self.cut_one_way, self.freeze_worker, self.freeze_server, self.kill_sessions,
            self.stop_sshd, self.reboot_box, self.kill_worker, self.kill_server, self.kill_client,
        ]  # fmt: skip

    def tell(self, text: str) -> None:
        self.story.append(f"{time.monotonic() - self._began:.1f} s {text}")

    def strike(self, number: int, of: int) -> None:
        """One fault from beginning to end. Each kind comes before any comes twice."""
        if number == of // 2:
            return self.gone_for_good()
        if number % len(self._kinds) == 0:
            self.chance.shuffle(self._kinds)
        self._kinds[number % len(self._kinds)]()

    def _wait(self, shortest: float, longest: float) -> None:
        """Let it last; meanwhile whoever ends by himself comes back."""
        end = time.monotonic() + self.chance.uniform(shortest, longest)
        while time.monotonic() < end:
            self.lab.tend()
            time.sleep(0.05)

    def _worker(self) -> str:
        return self.chance.choice([name for name in (*RESIDENT, CRON) if name in self.lab.running])

    def cut(self, ways: tuple[str, ...] = ("in", "out")) -> None:
        name = self.chance.choice([self._worker(), "desk", "box"])
        self.tell(f"{name} is cut off, {' and '.join(ways)}")
        self.lab.hosts.cut(name, ways)
        self._wait(0.5, 1.5 * LEASE)
        self.lab.hosts.heal(name)

    def cut_one_way(self) -> None:
        self.cut((self.chance.choice(("in", "out")),))

    def freeze_worker(self) -> None:
        name = self._worker()
        party = self.lab.running[name]
        self.tell(f"{name} is frozen past its lease")
        party.send(signal.SIGSTOP)
        self._wait(1.1 * LEASE, 1.5 * LEASE)
        party.thaw()

    def freeze_server(self) -> None:
        self.tell("the server is frozen")
        self.lab.running["server"].send(signal.SIGSTOP)
        self._wait(0.3, 1.2 * LEASE)
        self.lab.running["server"].thaw()

    def kill_sessions(self) -> None:
        self.tell(f"{self.lab.cut()} processes of sshd's sessions are killed")
        self._wait(0.1, 1.0)

    def stop_sshd(self) -> None:
        self.tell("sshd is killed")
        self.lab.sshd.stop()
        self._wait(0.1, 3.0)
        self.lab.sshd.start()

    def reboot_box(self) -> None:
        self.tell("the box goes down")
        self.lab.running["server"].kill()
        self.lab.running.pop("server")
        self.lab.sshd.stop()
        self._wait(0.5, 4.0)
        self.lab.sshd.start()
        self.lab.start("server")

    def _kill(self, name: str) -> None:
        self.tell(f"{name} is killed")
        self.lab.running[name].kill()
        self._wait(0.1, 1.5)

    def kill_worker(self) -> None:
        self._kill(self._worker())

    def kill_server(self) -> None:
        self._kill("server")

    def kill_client(self) -> None:
        self._kill("client")

    def gone_for_good(self) -> None:
        self.tell("elm is killed and never comes back")
        self.lab.running.pop("elm").kill()


class Judge:
    """What must hold when all is calm again; `violations` tells what does not."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.violations = lab, []
        self.acked = {row[0]: (int(row[1]), int(row[2])) for row in live_client.rows(lab.root / "acked")}

    def check(self) -> None:
        collected = dict(live_client.rows(self.lab.root / "collected"))
        for job, (value, attempts) in self.acked.items():
            self._job(job, value, attempts, collected.get(job, "nothing"))
        self._executions()
        self._boxes()
        for host in HOSTS:
            self._sockets(host)

    def _fail(self, text: str) -> None:
        self.violations.append(text)

    def _job(self, job: str, value: int, attempts: int, told: str) -> None:
        where = [str(s) for s in JOB_FOLDERS if (self.lab.spool / str(s) / job).is_dir()]
        verdict = self.lab.verdict(job)
        if where == ["failed"] and attempts == 3 and "lost 3 times" in verdict and told == "failed":
            return
        if where != ["done"]:
            self._fail(f"{job}: acknowledged, and it is in {where}: {verdict.strip()}")
        elif told != str(value * value):
            self._fail(f"{job}: the client was told {told}, not {value * value}")

    def _executions(self) -> None:
        marks = [tuple(row) for row in live_client.rows(self.lab.root / "marks")]
        for (job, attempt), times in Counter(marks).items():
            if times > 1:
                self._fail(f"{job}: attempt {attempt} was executed {times} times")
        for job, times in Counter(job for job, _ in marks).items():
            if times > self.acked.get(job, (0, live_client.PATIENT))[1]:
                self._fail(f"{job}: executed {times} times")

    def _boxes(self) -> None:
        def left() -> list[str]:
            boxes = (self.lab.spool / box for box in ("incoming", "locks", "results"))
            return [f"{p.parent.name}/{p.name}" for box in boxes for p in box.glob("[!.]*")
                    if p.suffix != ".out"]  # fmt: skip

        try:
            wait_until(lambda: not left(), "the drop boxes are empty", 3 * LEASE)
        except AssertionError:
            self._fail(f"left over: {', '.join(left())}")

    def _sockets(self, host: str) -> None:
        for line in self.lab.hosts.listening(host):
            if '"sshd"' not in line:
                self._fail(f"listening on {host}: {line}")


def lived(root: Path, seed: int, faults: int, jobs: int, environ: dict | None = None) -> list[str]:
    """One lab from beginning to end; its violations, the story with the first."""
    lab = Lab(root, environ)
    trouble = Trouble(lab, Random(seed))
    try:
        lab.begin(jobs)
        wait_until(lambda: (root / "collected").exists(), "the first result", 60)
        for number in range(faults):
            trouble.strike(number, faults)
        trouble.tell("all is calm")
        _wait_for_the_end(lab)
        judge = Judge(lab)
        judge.check()
        violations = judge.violations
    except AssertionError as error:
        violations = [str(error)]
    finally:
        lab.close()
    return [f"seed {seed}: {violations[0]}; story: {'; '.join(trouble.story)}", *violations[1:]] if violations else []


def _wait_for_the_end(lab: Lab) -> None:
    end = time.monotonic() + BOUND
    client = lab.running["client"]
    while lab.running["client"].running or lab.running["client"].end() != 0:
        lab.tend()
        client = lab.running["client"]
        acked, got = (len(live_client.rows(lab.root / name)) for name in ("acked", "collected"))
        assert time.monotonic() < end, f"not all has ended: {got} of {acked}; {client.err[-300:]}"
        time.sleep(0.1)


def prove(level: str) -> list[Outcome]:
    faults, jobs = PLANS[level]
    method = f"real parties over SSH between {len(HOSTS)} network namespaces, {jobs} jobs"
    lacking = why_not()
    began, seed, violations = time.monotonic(), int.from_bytes(os.urandom(3), "big"), []
    if not lacking:
        with tempfile.TemporaryDirectory() as folder:
            violations = lived(Path(folder), seed, faults, jobs)
    return [
        Outcome(
            promises=(1, 2, 4, 5), method=method, n=0 if lacking else faults, unit="faults",
            violations=tuple(violations), seconds=round(time.monotonic() - began, 1),
            seeds=str(seed), not_run=lacking,
        )
    ]  # fmt: skip

"""Real servers, workers and clients for tests: started, stopped, frozen and killed by pid.

A `World` is one spool, with a home for each party; its fixture is in conftest.py. Nothing here waits
without a bound, and `close` fails the test if a process of this world is left over.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import cloudpickle

from dsage_spool import names
from dsage_spool.cli import making
from dsage_spool.client.connecting import connect
from dsage_spool.config import Config
from dsage_spool.files import LocalFiles
from dsage_spool.signing import RESULT_NAMESPACE
from dsage_spool.states import JOB_FOLDERS, TERMINAL

BOUND = 60.0  # seconds; only a hang comes near it
LONG, SHORT = 120.0, 2.0  # leases: one that never ends during a test, one that ends at once

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # slots cannot import tests


def wait_until(condition: Callable[[], object], what: object, seconds: float = BOUND):
    """The first true answer of `condition`; fails the test, telling `what`, after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"never: {what() if callable(what) else what}"
        time.sleep(0.02)


def stays(condition: Callable[[], object], what: str, seconds: float) -> None:
    """For what must not happen: looks for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), f"no longer: {what}"
        time.sleep(0.02)


def counted(folder: str, value: object) -> object:
    """A job: leave a mark for this execution, wait for the gate to open, return."""
    import os
    import time

    mark = f"{os.environ['DSAGE_SPOOL_JOB']} {os.environ['DSAGE_SPOOL_ATTEMPT']} {value}\n"
    opened = os.open(f"{folder}/marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(opened, mark.encode())
    while not os.path.exists(f"{folder}/gate"):
        time.sleep(0.02)
    return value


class Party:
    """One process. What it says goes to a file."""

    def __init__(self, argv: list[str], home: Path, log: Path, **environ: str) -> None:
        kept = ("PATH", "LANG", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "DSAGE_SPOOL_WATCH")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {"HOME": str(home), "LOGNAME": "alice", **environ}
        self._out, self._err = log.with_suffix(".out"), log.with_suffix(".err")
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                argv, cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        self.pid = self.process.pid

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def send(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)
        wait_until(lambda: _state(self.pid) in "TZX", f"{self.pid} is frozen")

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait(BOUND)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.end()

    def end(self) -> int:
        """Its exit status, once it has ended by itself."""
        return self.process.wait(BOUND)


class World:
    """One spool with a person `alice`; workers are entered in the roster when they start."""

    def __init__(self, root: Path, lease: float = LONG) -> None:
        self.root, self.spool = root, root / "spool"
        self.parties: list[Party] = []
        self._sessions: list = []
        making.init_spool(
            str(self.spool), self.config("alice"), user="alice", worker="desk", lease=lease
        )

    # -- homes -------------------------------------------------------------------------------

    def home(self, name: str) -> Path:
        home = self.root / f"home-{name}"
        home.mkdir(exist_ok=True)
        return home

    def config(self, name: str) -> Config:
        return Config(self.home(name), {"LOGNAME": "alice"}, {})

    # -- parties -----------------------------------------------------------------------------

    def run(self, *words: str, home: str = "alice", python: tuple[str, ...] = (), **environ) -> Party:
        """`dsage-spool WORDS`, in the background."""
        argv = [sys.executable, *python, "-m", "dsage_spool", *words]
        return self._started(argv, home, environ)

    def client(self, text: str, *words: str) -> Party:
        """A program of alice's, with `session` open."""
        before = f"import sys, dsage_spool; session = dsage_spool.connect({str(self.spool)!r})\n"
        tests = str(Path(__file__).parent)
        argv = [sys.executable, "-c", before + text, *words]
        return self._started(argv, "alice", {"PYTHONPATH": tests})

    def _started(self, argv: list[str], home: str, environ: dict) -> Party:
        log = self.root / f"party-{len(self.parties)}"
        party = Party(argv, self.home(home), log, **environ)
        self.parties.append(party)
        return party

    def server(self, **more) -> Party:
        """A server that has opened the spool."""
        party = self.run("server", str(self.spool), home="server", **more)
        self._wait_for(party, "a server", lambda: "serving spool" in party.err)
        return party

    def worker(self, name: str = "desk", *options: str, verb: str = "worker", **more) -> Party:
        """A worker that is enrolled and waits for jobs, or works already."""
        before = set(self._runs(name))
        party = self.work(name, *options, verb=verb, **more)
        self._wait_for(party, f"worker {name}", lambda: set(self._runs(name)) - before)
        return party

    def work(self, name: str, *options: str, verb: str = "worker", **more) -> Party:
        """A worker or a pull, just started."""
        self._enter(name)
        words = (verb, str(self.spool), "--slots", "1", "--nice", "0", "--name", name, *options)
        return self.run(*words, home=name, **more)

    def _enter(self, name: str) -> None:
        signer = making.worker_key(self.config(name))
        making.enter(LocalFiles(self.spool), name, signer, RESULT_NAMESPACE)

    def _runs(self, name: str) -> list[str]:
        runs = (self.spool / "workers").iterdir()
        return [run.name for run in runs if (names.parse_run(run.name) or " ")[0] == name]

    def _wait_for(self, party: Party, what: str, ready: Callable[[], object]) -> None:
        def answer() -> bool:
            assert party.running or ready(), f"{what} has ended: {party.err}"
            return bool(ready())

        wait_until(answer, f"{what} is ready")

    # -- jobs --------------------------------------------------------------------------------

    def session(self):
        """alice's session, in this process."""
        self._sessions.append(connect(str(self.spool), user="alice", config=self.config("alice")))
        return self._sessions[-1]

    def submit_counted(self, value: object = 42, **options):
        """A job that leaves marks and waits for the gate."""
        from dsage_spool import Options

        return self.session().submit_call(counted, (str(self.root), value), options=Options(**options))

    def open_gate(self) -> None:
        (self.root / "gate").touch()

    def marks(self, job: str = "") -> list[str]:
        """One line for each execution of a job, or of all."""
        path = self.root / "marks"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(job)]

    def where(self, job: str) -> list[str]:
        """The state folders in which the job is; while it moves it may seem to be in none or two."""
        inside = [str(state) for state in JOB_FOLDERS if (self.spool / str(state) / job).is_dir()]
        return inside + (["incoming"] if (self.spool / f"incoming/{job}.job").exists() else [])

    def wait_for(self, job: str, state: str) -> None:
        def there() -> bool:
            found = self.where(job)
            ended = set(found) & set(map(str, TERMINAL)) - {state}
            assert not ended, f"{job} is {ended}, not {state}: {self.verdict(job)}"
            return found == [state]

        wait_until(there, lambda: f"{job} is {state}; it is {self.where(job)}")

    def wait_for_mark(self, job: str) -> None:
        self.wait_for(job, "running")
        wait_until(lambda: self.marks(job), f"{job} runs")

    def verdict(self, job: str) -> str:
        return "".join(path.read_text() for path in self.spool.glob(f"*/{job}/verdict"))

    def value(self, job: str) -> object:
        """As alice sees it, with all signatures checked, in a session of its own."""
        return self.session().job(job).result(BOUND)

    def check_ended_once(self, job: str, state: str = "done") -> None:
        """One terminal folder, and nothing of it on its way."""
        self.wait_for(job, state)
        wait_until(lambda: not self.on_its_way(job), lambda: f"nothing left: {self.on_its_way(job)}")
        assert self.where(job) == [state]

    def on_its_way(self, job: str) -> list[Path]:
        """What lies in the drop boxes for a job."""
        boxes = ("incoming", "locks", "results")
        return [path for box in boxes for path in (self.spool / box).glob(f"{job}*")]

    # -- the end -----------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Whoever has to do with this world: our parties, their slots, their jobs."""
        sign = os.fsencode(f"{self.root}/")
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in pids if pid != os.getpid() and sign in _told(pid)]

    def close(self) -> None:
        for session in self._sessions:
            session.close()
        for party in self.parties:
            party.kill()
        try:
            wait_until(lambda: not self.processes(), "all processes have ended", 20)
        finally:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _told(pid: int) -> bytes:
    """Its command line and its environment; empty for those that have ended."""
    try:
        return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    except OSError:
        return b""

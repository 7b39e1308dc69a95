"""A spool with its server and a worker, real processes in a folder of their own, for benchmarks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from sshd import Sshd  # noqa: E402

import dsage_spool  # noqa: E402
from dsage_spool.config import load_config  # noqa: E402
from dsage_spool.client.connecting import connect  # noqa: E402


class World:
    """`ssh` puts client and worker behind a real sshd on loopback."""

    def __init__(self, folder: Path, ssh: bool = False, slots: int = 2, worker: bool = True) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.environ = {**os.environ, "HOME": str(folder), "DSAGE_SPOOL_USER": "bench"}
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "DSAGE_SPOOL_KEY"):
            self.environ.pop(name, None)
        self._started: list[subprocess.Popen] = []
        self.sshd = None
        if ssh:
            (folder / "sshd").mkdir()
            self.sshd = Sshd(folder / "sshd")
        self.place = str(self.spool)
        if self.sshd:
            self.environ["DSAGE_SPOOL_SSH_CONFIG"] = str(self.sshd.config)
            self.place = f"spoolhost:{self.spool}"
        self._run("init", str(self.spool), "--worker", "bench-worker")
        self.server = self._start("server", str(self.spool), "--quiet")
        self._wait_for(self.spool / "queue")
        self.worker = self._start_worker(slots) if worker else None

    def _start_worker(self, slots: int) -> subprocess.Popen:
        process = self._start(
            "worker", self.place, "--slots", str(slots), "--name", "bench-worker", "--nice", "0"
        )
        deadline = time.monotonic() + 30
        while not [run for run in os.listdir(self.spool / "workers") if run[0] != "."]:
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("the worker did not start")
            time.sleep(0.02)
        return process

    def connect(self) -> dsage_spool.Session:
        return connect(self.place, config=load_config(self.environ, self.folder))

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "dsage_spool", *words]

    def _run(self, *words: str) -> None:
        subprocess.run(self._command(*words), env=self.environ, check=True, stderr=subprocess.DEVNULL)

    def _start(self, *words: str) -> subprocess.Popen:
        process = subprocess.Popen(self._command(*words), env=self.environ, cwd=self.folder, stderr=None)
        self._started.append(process)
        return process

    def _wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + 30
        while not path.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{path} did not appear")
            time.sleep(0.02)

    def close(self) -> None:
        for process in reversed(self._started):
            process.send_signal(signal.SIGTERM)
        for process in self._started:
            process.wait(30)
        if self.sshd:
            self.sshd.stop()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and of all its living and ended children."""
    ticks = os.sysconf("SC_CLK_TCK")
    text = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total = sum(map(int, text[11:15])) / ticks
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return total + sum(cpu_seconds(int(child)) for child in children)


def memory_bytes(pid: int) -> int:
    """Peak resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0

"""A spool whose clients and workers come over a real sshd on loopback; its server is local."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from commands import Told, dsage
from dsage_spool.client.connecting import connect
from dsage_spool.config import Config
from parties import LONG, Party, World, wait_until
from sshd import Sshd


class SshWorld(World):
    """`spoolhost` is the host's name in the ssh configuration that its people and workers use."""

    def __init__(self, root: Path, lease: float = LONG) -> None:
        super().__init__(root, lease)
        (root / "sshd").mkdir()
        # Without a login shell: what its start-up files begin must not be killed half way by `cut`.
        self.sshd = Sshd(root / "sshd", Subsystem="sftp internal-sftp")
        self.place = f"spoolhost:{self.spool}"
        self.ssh = {"DSAGE_SPOOL_SSH_CONFIG": str(self.sshd.config)}

    # -- everybody comes over SSH --------------------------------------------------------------

    def work(self, name: str, *options: str, verb: str = "worker", **more) -> Party:
        self._enter(name)
        words = (verb, self.place, "--slots", "1", "--nice", "0", "--name", name, *options)
        return self.run(*words, home=name, **self.ssh, **more)

    def config(self, name: str) -> Config:
        return Config(self.home(name), {"LOGNAME": "alice", **getattr(self, "ssh", {})}, {})

    def session(self):
        self._sessions.append(connect(self.place, user="alice", config=self.config("alice")))
        return self._sessions[-1]

    def dsage(self, *words: str, **more) -> Told:
        """A command of alice's, over SSH."""
        return dsage(self, *words, **{"DSAGE_SPOOL_SPOOL": self.place, **self.ssh, **more})

    # -- trouble -------------------------------------------------------------------------------

    def cut(self) -> int:
        """Kill whoever serves a connection; how many processes that were."""
        pids = self.sshd.sessions()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # its parent's end has ended it
        return len(pids)

    def outbox(self, worker: str) -> list[Path]:
        """Finished results that a worker could not deliver yet."""
        return list(self.home(worker).glob(".local/state/dsage-spool/workers/*/outbox/[!.]*"))

    def finish_unheard(self, worker: str) -> None:
        """With the host away: let the job end, and wait until its result waits in the outbox."""
        self.sshd.stop()
        self.open_gate()
        wait_until(lambda: self.outbox(worker), "the result is in the outbox")

    def close(self) -> None:
        for session in self._sessions:
            session.close()
        self.sshd.stop()
        super().close()

"""The command as a user types it: in a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

from parties import BOUND, World

COMMAND = (sys.executable, "-m", "dsage_spool")


class Told(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def job(self) -> str:
        """The job that `submit` printed."""
        assert self.status == 0, self
        return self.out.strip()

    @property
    def submitted(self) -> str:
        """The job that `submit --wait` told on stderr; empty if it did not come so far."""
        words = self.err.split("\n")[0].split(" ")
        return words[1] if words[0] == "submitted" else ""

    @property
    def json(self) -> Any:
        """The one value on stdout."""
        return json.loads(self.out)


def environment(world: World, home: str = "alice", **more: str) -> dict[str, str]:
    kept = ("PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    usual = {name: os.environ[name] for name in kept if name in os.environ}
    named = {"HOME": str(world.home(home)), "DSAGE_SPOOL_SPOOL": str(world.spool)}
    return usual | named | {"LOGNAME": "alice"} | {"LANG": "C.UTF-8"} | more


def dsage(world: World, *words: str, stdin: str = "", before: tuple[str, ...] = (), **more) -> Told:
    """Run `dsage-spool WORDS` to its end; `before` is what it is started by, like `unshare -m`."""
    home = more.pop("home", "alice")
    done = subprocess.run(
        [*before, *COMMAND, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=BOUND,
        cwd=world.home(home),
        env=environment(world, home, **more),
    )
    return Told(done.returncode, done.stdout, done.stderr)


def check_complaint(told: Told, status: int, *sentences: str) -> None:
    """This exit status, a sentence for it, and what to do; and nothing else anywhere."""
    assert told.status == status, told
    assert told.out == "", told
    assert told.err.removeprefix(f"submitted {told.submitted}\n").startswith("dsage-spool: "), told
    assert "/cli/" not in told.err, told  # as in a traceback of ours
    assert "\nhint: " in told.err, told
    for sentence in sentences:
        assert sentence in told.err, told


def powerless() -> tuple[str, ...]:
    """What takes root's right to pass over permissions; nothing where we are not root."""
    if os.getuid():
        return ()
    assert shutil.which("setpriv"), "setpriv is missing; type: apt-get install util-linux"
    return ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")

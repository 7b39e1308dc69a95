"""Power loss on real file systems: promises 1, 2 and 5 on images of a disk whose power went.

A story (`power_story`) is played on a real file system whose disk logs every write and flush
(`block_log`). The log is cut at many points, in order or with unflushed writes dropped; each image
is mounted, which recovers its journal, and a fresh server must make good all promises
(`power_survivor`).

Needs root, FUSE and loop devices. A run is a process in mount and process namespaces of its own,
with all its files on a tmpfs there: however it ends, the kernel takes everything away.

To see a violation again: `run(Task(...))` with what its line tells. One seed is always the same
operations; how the kernel writes them out differs a little, so the line names the operation too.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable, Iterator, Sequence

from dsage_spool import durable
from dsage_spool.files import LocalFiles
from dsage_spool.server import recover
from dsage_spool.spool import moving

from . import power_survivor
from .block_log import Cut, Entry, Images, Served, copy_sparse, lacks_binding, read_log
from .promises import Outcome
from .power_story import ENDED, Story

HERE = Path(__file__).parent.parent
LONGEST = 300.0  # seconds; a run that takes more is stuck
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # for mkfs
TRIES = 20  # to get a loop device
TOLD = 6  # problems of one image that are told
SPACE = "unshare --mount --pid --fork --kill-child --mount-proc --propagation private".split()


@dataclass(frozen=True)
class Kind:
    """A file system: how large, how it is made, and how a copy of it is mounted."""

    size: int  # MiB
    mkfs: tuple[str, ...]
    variants: tuple[tuple[str, ...], ...] = ((),)  # more words for mkfs; the seed takes one
    options: str = ""


KINDS = {
    "ext4": Kind(
        32,
        ("mkfs.ext4", "-q", "-F", "-J", "size=4", "-E", "nodiscard"),
        # Not with fast_commit: now and then ext4 itself refuses to mount such an image.
        (("-b", "4096"), ("-b", "1024")),
    ),
    "xfs": Kind(300, ("mkfs.xfs", "-q", "-f", "-K"), options="nouuid"),  # its smallest
    "btrfs": Kind(128, ("mkfs.btrfs", "-q", "-f", "-K"), ((), ("--mixed",))),
}
FULL = (("ext4", 24, 25), ("btrfs", 6, 20), ("xfs", 5, 20))  # kind, runs, images a run
QUICK = (("ext4", 2, 20),)


@dataclass(frozen=True)
class Task:
    """One story and its images. `plant` names a bug that is put into the shipped code."""

    kind: str
    seed: int
    images: int
    turns: int = 60
    plant: str = ""
    only: int = 0  # check the cut of this number alone, counted from 1


@dataclass
class Told:
    """What a run answers: violations and figures, or why it could not begin."""

    images: int = 0
    violations: list[str] = field(default_factory=list)
    entries: int = 0
    jobs: int = 0
    promises: int = 0  # moments at which something was promised
    not_run: str = ""


# -- planted bugs ---------------------------------------------------------------------------------


def _flush_less(keeps: Callable[[str], bool]) -> None:
    """From now on only the paths that `keeps` are flushed."""
    flush = durable.flush
    durable.flush = lambda paths: flush([path for path in paths if keeps(path)])


def _one_step_publish() -> None:
    flush = moving._flush_writes

    def flush_less(files, changes) -> None:
        flush(files, [change for change in changes if change.target not in ENDED])

    moving._flush_writes = flush_less


def _end_decided_anew() -> None:
    recover._decision = lambda *_: ""


PLANTED: dict[str, Callable[[], None]] = {
    "no file sync": lambda: _flush_less(os.path.isdir),
    "no folder sync": lambda: _flush_less(lambda path: not os.path.isdir(path)),
    "claim not flushed": lambda: _flush_less(lambda path: not path.endswith("/locks")),
    "one-step publish": _one_step_publish,
    "an end that could be read is decided anew": _end_decided_anew,
}


# -- inside: one run ------------------------------------------------------------------------------


def run_here(task: Task, folder: Path) -> Told:
    """Play the story and check its images, all in `folder`."""
    kind, base = KINDS[task.kind], folder / "base"
    make_file_system(kind, task.seed, base)
    copy_sparse(base, folder / "disk")
    with Served(folder) as served:
        try:
            with mounted(served.device, folder / "mount", task.kind):
                story = _played(task, served, folder / "mount")
        except NotMounted as error:
            return Told(not_run=str(error))
    entries = read_log(folder / "log")
    told = Told(entries=len(entries), jobs=len(story.texts), promises=len(story.told | story.seen))
    images, cuts = Images(base, entries), choose_cuts(task, entries, story)
    for number, cut in enumerate(cuts, 1):
        if task.only in (0, number):
            images.make(cut, folder / "image")
            problems = check_image(folder, task, story, entries[cut.count - 1].end)
            rest = _rest_of_line(task, number, cut, entries, story)
            told.violations += [problem + rest for problem in problems[:TOLD]]
            told.images += 1
    return told


def make_file_system(kind: Kind, seed: int, path: Path) -> None:
    with open(path, "wb") as disk:
        disk.truncate(kind.size << 20)
    variant = kind.variants[seed % len(kind.variants)]
    if _quiet(*kind.mkfs, *variant, str(path)).returncode:  # an older mkfs may not know it
        _quiet(*kind.mkfs, str(path)).check_returncode()


def _quiet(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


class NotMounted(Exception):
    """The kernel does not take this file system."""


@contextmanager
def mounted(disk: Path, place: Path, kind: str) -> Iterator[None]:
    """The loop device goes with the mount."""
    place.mkdir(exist_ok=True)
    options = ",".join(filter(None, ("loop", KINDS[kind].options)))
    command = ("mount", "-n", "-t", kind, "-o", options, str(disk), str(place))
    for _ in range(TRIES):
        done = _quiet(*command)
        if "loop device" not in done.stderr:  # else somebody else has just taken it
            break
    if done.returncode:
        raise NotMounted(done.stderr.strip().replace("\n", " "))
    try:
        yield
    finally:
        _quiet("umount", "-n", str(place)).check_returncode()


def _played(task: Task, served: Served, mount: Path) -> Story:
    (mount / "spool").mkdir()
    if task.plant:
        PLANTED[task.plant]()
    story = Story(str(mount / "spool"), lambda: served.position, task.seed)
    story.play(task.turns)
    return story


def choose_cuts(task: Task, entries: Sequence[Entry], story: Story) -> list[Cut]:
    """Half of them just when something was told or could first be seen, the others anywhere.

    By chance in order, or with what was not flushed dropped.
    """
    chance = random.Random(f"cuts {task.seed}")
    ends = [entry.end for entry in entries]
    first, last = bisect_right(ends, story.made), bisect_right(ends, story.end)
    counts: list[int] = []
    for moments in (story.seen, story.told):
        known = sorted({bisect_right(ends, moment) for moment in moments})
        counts += chance.sample(known, min(len(known), task.images // 4))
    counts += chance.choices(range(first, last + 1), k=task.images - len(counts))
    return [
        Cut(count, chance.randrange(1 << 30) if chance.random() < 0.5 else None)
        for count in sorted(counts)
    ]


def check_image(folder: Path, task: Task, story: Story, position: int) -> list[str]:
    mount = folder / "image-mount"
    try:
        with mounted(folder / "image", mount, task.kind):
            return power_survivor.check(LocalFiles(mount / "spool"), story, position)
    except NotMounted as error:
        return [f"the file system does not come back: {error}"]


def _rest_of_line(
    task: Task, number: int, cut: Cut, entries: Sequence[Entry], story: Story
) -> str:
    replay = json.dumps({**asdict(task), "only": number})
    doing = story.doing(entries[cut.count - 1].end)
    return f" ({cut}, of {len(entries)}, in {doing}); {replay}"


def main(task: Task, folder: Path) -> None:
    """In namespaces of its own; ends with its standard input, since whoever asked is gone then."""
    subprocess.run(["mount", "-n", "-t", "tmpfs", "power-loss", str(folder)], check=True)
    threading.Thread(target=_end_with_input, args=(folder,), daemon=True).start()
    try:
        print(json.dumps(asdict(run_here(task, folder))), flush=True)
    finally:
        _leave(folder)


def _end_with_input(folder: Path) -> None:
    sys.stdin.read()
    _leave(folder)
    os._exit(1)  # the first process of a namespace: the kernel ends the others and unmounts


def _leave(folder: Path) -> None:
    """Take away the folder too: whoever made it may have been killed."""
    subprocess.run(["umount", "-n", "--lazy", str(folder)], capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


# -- outside: many runs ---------------------------------------------------------------------------


def run(task: Task) -> Told:
    """A run in its own namespaces; whatever goes wrong in it is a violation, told in one line."""
    folder = tempfile.mkdtemp(prefix="power-loss-")
    argv = [*SPACE, sys.executable, "-m", "proof.power_loss", json.dumps(asdict(task)), folder]
    with tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            argv, cwd=HERE, env={**os.environ, "PATH": SEARCH}, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err,
        )  # fmt: skip
        timer = threading.Timer(LONGEST, process.kill)
        timer.start()
        try:
            out = process.stdout.read()  # not `communicate`: the end of its input ends the run
        finally:
            timer.cancel()
            _stop(process)
            shutil.rmtree(folder, ignore_errors=True)
        err.seek(0)
        return _told(task, out, err.read())


def _stop(process: subprocess.Popen) -> None:
    process.stdin.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()  # its namespace goes with it
        process.wait()
    process.stdout.close()


def _told(task: Task, out: str, err: str) -> Told:
    try:
        return Told(**json.loads(out))
    except ValueError:
        last = (err.strip() or "it said nothing").splitlines()[-1]
    return Told(violations=[f"a run ended without an answer: {last}; {json.dumps(asdict(task))}"])


def why_not() -> str:
    """What this machine lacks; empty if it can do all this."""
    if os.geteuid() != 0:
        return "only root can mount file systems"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            return f"there is no {device}"
    for program in ("unshare", "mount", "umount"):
        if not _program(program):
            return f"there is no {program}; type: apt-get install util-linux mount"
    if error := lacks_binding():
        return error
    if error := _quiet(*SPACE, "true").stderr.strip():
        return f"no namespaces: {error}"
    return ""


def why_not_kind(kind: str) -> str:
    program = KINDS[kind].mkfs[0]
    return "" if _program(program) else f"there is no {program}"


def _program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH)


def prove(level: str) -> list[Outcome]:
    """One row for each file system, and one for the planted bugs."""
    plan = FULL if level == "full" else QUICK
    lacking = why_not()
    rows = [_row(kind, runs, images, lacking) for kind, runs, images in plan]
    return [*rows, _planted_row(lacking)]


def _row(kind: str, runs: int, images: int, lacking: str) -> Outcome:
    method = f"power loss on {kind}: the log of all writes cut, unflushed ones kept or dropped"
    begun = time.monotonic()
    told = []
    if not (lacking := lacking or why_not_kind(kind)):
        told = run_all([Task(kind, seed, images) for seed in range(runs)])
        lacking, told = _sorted_out(told)
    return Outcome(
        promises=(1, 2, 5),
        method=method,
        n=sum(one.images for one in told),
        unit="images",
        violations=tuple(line for one in told for line in one.violations),
        seconds=round(time.monotonic() - begun, 1),
        seeds=f"0-{runs - 1}",
        not_run=lacking,
        notes=_notes(told),
    )


def _sorted_out(told: list[Told]) -> tuple[str, list[Told]]:
    """Why nothing could be tried; if only some runs could not begin, that is a violation."""
    reasons = [one.not_run for one in told if one.not_run]
    if len(reasons) == len(told):
        return reasons[0], []
    return "", [*told, Told(violations=[f"a run could not begin: {why}" for why in reasons])]


def _notes(told: Sequence[Told]) -> tuple[str, ...]:
    jobs, entries = sum(one.jobs for one in told), sum(one.entries for one in told)
    return (f"{jobs} jobs, {entries} writes and flushes",) if jobs else ()


def run_all(tasks: Sequence[Task]) -> list[Told]:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(run, tasks))


def planted_task(name: str) -> Task:
    return Task("ext4", 3, 8, turns=40, plant=name)


def _planted_row(lacking: str) -> Outcome:
    begun = time.monotonic()
    lacking = lacking or why_not_kind("ext4")
    told = [] if lacking else run_all([planted_task(name) for name in PLANTED])
    missed = [name for name, one in zip(PLANTED, told) if not one.violations]
    return Outcome(
        promises=(1, 2),
        method=f"planted bugs that power loss on ext4 must show: {', '.join(PLANTED)}",
        n=len(told),
        unit="bugs",
        violations=tuple(f"not caught: {name}" for name in missed),
        seconds=round(time.monotonic() - begun, 1),
        not_run=lacking,
    )


if __name__ == "__main__":
    main(Task(**json.loads(sys.argv[1])), Path(sys.argv[2]))

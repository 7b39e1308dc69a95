"""What `doctor` looks at in a spool, a small function for each thing; `doctor` does the telling.

A check yields `Word`s: level, what was found, what to type. It may raise any SpoolError: that is a
finding too. Checks write nothing but probes, under names that no party looks at, and remove them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Callable, Iterator, NamedTuple

from .. import layout, names, needs
from ..address import parse_address
from ..client.snapshot import Snapshot, WorkerRow, take
from ..config import Config
from ..errors import Exists, FileAnswer, SpoolError
from ..files import Files
from ..places import Place
from ..signing import JOB_NAMESPACE, RESULT_NAMESPACE, Roster, Signer, sign
from ..spool.settings import Settings

OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"

LOW_BYTES = 1_000_000_000
LOW_SHARE = 0.05
CLOCKS_APART = 60.0  # seconds
ROSTER_LIMIT = 16 << 20

# Where hard links, locks or flushes are not what they are on a disk of this machine (see proc(5)).
_FOREIGN = ("nfs", "cifs", "smb", "fuse", "9p", "afs", "ceph", "lustre", "gluster", "beegfs")
_FLEETING = ("tmpfs", "ramfs")


class Word(NamedTuple):
    level: str
    detail: str
    hint: str = ""


@dataclass
class Case:
    """What is known so far; a check fills in what later ones need."""

    config: Config
    user: str | None = None
    key: str | None = None
    named: str | None = None  # the spool, as the command line names it
    spec: str = ""
    place: Place | None = None
    files: Files | None = None
    settings: Settings | None = None
    signer: Signer | None = None
    worker_signer: Signer | None = None
    nonce: str = field(default_factory=lambda: names.make_nonce(os.urandom(5)))

    @cached_property
    def roster(self) -> Roster:
        return Roster.parse(self.files.read(layout.ROSTER, ROSTER_LIMIT).decode("utf-8", "replace"))

    @cached_property
    def shot(self) -> Snapshot:
        return take(self.files, self.spec, self.place.local)

    @property
    def probe(self) -> str:
        return f"doctor.{self.nonce}"

    def there(self, command: str) -> str:
        """A command with the spool's path, as it is typed on the spool's machine."""
        address = parse_address(self.spec)
        if address is None:
            return f"{command} {self.place.path}"
        return f"ssh {address.host}, and there: {command} {address.path}"


class Check(NamedTuple):
    what: str
    look: Callable[[Case], Iterator[Word]]
    worst: str = FAIL  # what an error in it means


# -- who may -----------------------------------------------------------------------------------


def your_name(case: Case) -> Iterator[Word]:
    """Sign something and have the roster check it, as the server will."""
    if case.signer is None:
        yield Word(SKIP, "there is no key to look for")
        return
    user = case.config.user(case.user)
    text = b"a probe of `dsage-spool doctor`\n"
    signature = sign(case.signer, text, JOB_NAMESPACE)
    try:
        case.roster.verify(text, signature, user, JOB_NAMESPACE, time.time())
    except SpoolError as error:
        others = case.roster.principals(JOB_NAMESPACE, case.signer.public)
        remedy = "dsage-spool key prints the line that the spool's owner adds to its file `roster`"
        hint = f"--user {others[0]} is the name of this key" if others else remedy
        yield Word(FAIL, f"{user}: {error.message}", hint)
        return
    yield Word(OK, f"{user} may submit with this key")


def worker_name(case: Case) -> Iterator[Word]:
    if case.worker_signer is None:
        yield Word(SKIP, "there is no key to look for")
        return
    name = case.config.worker()
    known = case.roster.principals(RESULT_NAMESPACE, case.worker_signer.public)
    if name in known:
        yield Word(OK, f"results of {name} count")
    elif known:
        yield Word(WARN, f"{name}: the key stands there for {known[0]}", f"--name {known[0]}")
    else:
        hint = "dsage-spool key --worker prints the line that the spool's owner adds to `roster`"
        yield Word(WARN, f"{name}: its key is not in the roster, nobody takes its results", hint)


def roster_lines(case: Case) -> Iterator[Word]:
    for problem in case.roster.problems:
        yield Word(WARN, problem, "correct it in the spool's file `roster`: it trusts nobody")
    if not case.roster.problems:
        people, workers = len(case.roster.people()), len(case.roster.workers())
        yield Word(OK, f"every line is understood; people: {people}, workers: {workers}")


# -- what the files can do ---------------------------------------------------------------------


def drop_boxes(case: Case) -> Iterator[Word]:
    """Put a probe into each box as a party would, and take it out again."""
    refused = []
    for box in layout.DROP_BOXES:
        try:
            _drop_probe(case, box)
        except SpoolError as error:
            refused.append(box)
            level = FAIL if box == layout.INCOMING else WARN
            who = "clients" if box == layout.INCOMING else "workers"
            yield Word(level, f"{box}/: {error.message}", error.hint or f"{who} must write there")
    if not refused:
        yield Word(OK, ", ".join(f"{box}/" for box in layout.DROP_BOXES) + " can be written")


def _drop_probe(case: Case, box: str) -> None:
    draft, inside = layout.in_tmp(case.probe), layout.in_box(box, f".{case.probe}")
    try:
        case.files.drop(draft, inside, b"a probe of `dsage-spool doctor`\n")
    except SpoolError:
        _remove(case.files, draft)
        raise
    case.files.remove(inside)


def _remove(files: Files, path: str) -> None:
    """Tidy up after a failure, which is told instead of another one here."""
    try:
        files.remove(path)
    except SpoolError:
        pass


def hard_links(case: Case) -> Iterator[Word]:
    """Claims are hard links: there must be some, and only the first of a name may succeed."""
    source, second = layout.in_tmp(case.probe), layout.in_tmp(f"{case.probe}.link")
    try:
        case.files.write(source, b"a probe of `dsage-spool doctor`\n")
        case.files.link(source, second)
        yield _second_link(case.files, source, second)
    finally:
        _remove(case.files, second)
        _remove(case.files, source)


def _second_link(files: Files, source: str, taken: str) -> Word:
    try:
        files.link(source, taken)
    except Exists:
        return Word(OK, "work, and only one party can win a claim")
    return Word(FAIL, "a second link to one name was not refused", "lay the spool on a local disk")


def flushing(case: Case) -> Iterator[Word]:
    if case.files.durable:
        yield Word(OK, "a submitted job is on stable storage")
    else:
        hint = "the host needs OpenSSH's sftp-server, with fsync@openssh.com (6.5 or later)"
        yield Word(WARN, "the host offers no flush: submitted means sent", hint)


def disk_kind(case: Case) -> Iterator[Word]:
    if not case.place.local:
        yield Word(SKIP, f"seen only there: {case.there('df -T')}")
        return
    try:
        with open("/proc/mounts", encoding="utf-8", errors="replace") as mounts:
            kind = file_system(os.path.realpath(case.place.path), mounts)
    except OSError:
        yield Word(SKIP, "this system has no /proc/mounts")
        return
    yield kind_word(kind)


def file_system(path: str, mounts: Iterator[str]) -> str:
    """The kind of the mount that holds `path`: the longest that leads to it, the last of equals."""
    best, kind = "", "?"
    for line in mounts:
        _, point, found = line.split(" ")[:3]
        point = point.replace(r"\040", " ").replace(r"\011", "\t").replace(r"\134", "\\")
        leads = path == point or path.startswith(point.rstrip("/") + "/")
        if leads and len(point) >= len(best):
            best, kind = point, found
    return kind


def kind_word(kind: str) -> Word:
    if kind.startswith(_FOREIGN):
        hint = "make the spool on a local disk of its host, and reach it as user@host:path"
        return Word(WARN, f"{kind}: claims and flushes are not safe on it", hint)
    if kind in _FLEETING:
        return Word(WARN, f"{kind}: a restart of the machine empties it", "use a disk for it")
    return Word(OK, kind)


def room(case: Case) -> Iterator[Word]:
    if not case.place.local:
        yield Word(SKIP, f"seen only there: {case.there('df -h')}")
        return
    found = os.statvfs(case.place.path)
    yield room_word("free", found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
    if found.f_files:  # some file systems make inodes as they go
        yield room_word("inodes free", found.f_favail, found.f_files)


def room_word(what: str, free: int, whole: int) -> Word:
    share = free / whole if whole else 0.0
    low = share < LOW_SHARE or (what == "free" and free < LOW_BYTES)
    amount = f"{free / 1e9:,.1f} GB" if what == "free" else f"{free:,}"
    detail = f"{amount} {what}, {share:.0%}"
    return Word(WARN, detail, "remove old jobs from done/ and failed/") if low else Word(OK, detail)


# -- who is there ------------------------------------------------------------------------------


def clocks(case: Case) -> Iterator[Word]:
    if case.place.local:
        yield Word(OK, "the spool is on this machine")
        return
    before = time.time()
    theirs = case.files.now()
    ahead = theirs - (before + time.time()) / 2
    detail = f"the host's is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
    if abs(ahead) > CLOCKS_APART:
        yield Word(WARN, detail, "set both by the network: timedatectl set-ntp true")
    else:
        yield Word(OK, detail)


def server(case: Case) -> Iterator[Word]:
    hint = case.there("dsage-spool server")
    age = case.shot.server_age
    if age is None:
        yield Word(FAIL, "none has served this spool yet", hint)
    elif not case.shot.server_alive:
        yield Word(FAIL, f"{case.shot.server}: not heard for {age:.0f} s", hint)
    else:
        yield Word(OK, f"{case.shot.server}: wrote {age:.0f} s ago")


def workers(case: Case) -> Iterator[Word]:
    alive = [row for row in case.shot.workers if row.alive]
    if not alive:
        yield Word(WARN, "none was heard lately", f"dsage-spool worker {case.spec}")
        return
    yield Word(OK, f"heard: {', '.join(row.name for row in alive[:5])}{_more(len(alive) - 5)}")
    yield _same_python(alive)


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _same_python(alive: list[WorkerRow]) -> Word:
    mine = needs.python_token()
    same = sum(mine in row.offers for row in alive)
    if same:
        return Word(OK, f"{same} of {len(alive)} can run functions pickled here ({mine})")
    theirs = ", ".join(sorted({row.python for row in alive}))
    hint = f"use the same Python ({theirs}), or submit source text or commands: they run anywhere"
    return Word(WARN, f"none can run functions pickled here ({mine})", hint)


def news(case: Case) -> Iterator[Word]:
    """The queue and the journal must be readable, or a client hears of nothing."""
    try:
        case.files.names(layout.JOURNAL, 1)
    except FileAnswer as error:
        yield Word(FAIL, error.message, "dsage-spool init makes what is missing")
        return
    yield Word(OK, "can be read")


IN_THE_SPOOL = (
    Check("your name", your_name),
    Check("worker name", worker_name, WARN),
    Check("roster", roster_lines),
    Check("journal", news),
    Check("drop boxes", drop_boxes),
    Check("hard links", hard_links),
    Check("flush", flushing),
    Check("file system", disk_kind, WARN),
    Check("room", room, WARN),
    Check("clock", clocks, WARN),
    Check("server", server),
    Check("workers", workers, WARN),
)

"""Bugs that people make in such systems, each as a patch of the shipped code; the oracle must catch all.

`GALLERY` maps a name to a function that answers what to put in the place of what. Those marked in
`FOUND_HERE` are bugs that this code really had, until the simulator found them.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Callable, Iterator
from unittest.mock import patch

from dsage_spool import layout, pack
from dsage_spool.errors import Exists, FileAnswer
from dsage_spool.server import decide, leases, look, recover, serve
from dsage_spool.server.book import Book
from dsage_spool.signing import Unproven
from dsage_spool.spool import dropping, moving
from dsage_spool.states import State
from dsage_spool.worker import hand, monitor, rosters, strays

from .disk import Disk
from .doors import HostFiles
from .weather import Focus

Patches = list[tuple[Any, str, Any]]
_commit, _put, _write = moving.commit, dropping.put, moving._write
_give_back, _end, _pass = decide.Decider._give_back, decide.Decider._end, serve.Server._carry_out


class Blind:
    """Files whose flushes do nothing."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def sync(self, paths: Any) -> None:
        return None


# -- what is not flushed -------------------------------------------------------------------------------


def no_file_sync() -> Patches:
    return [(moving, "_written", lambda change: [change.home])]


def no_folder_sync() -> Patches:
    def commit(files, changes):
        return _commit(Blind(files), changes)

    return [(serve, "commit", commit)]


def acknowledged_before_the_flush() -> Patches:
    return [(dropping, "put", lambda files, nonce, drops: _put(Blind(files), nonce, drops))]


def one_step_publish() -> Patches:
    """The job folder is renamed first, and flushed where it lies then."""

    def commit(files, changes):
        for change in changes:
            moving._write(files, change)
            moving._rename(files, change)
        for change in (change for change in changes if change.durable):
            files.sync([f"{change.end}/{name}" for name in change.writes] + [change.end])
            files.sync(sorted(map(str, moving._touched(change))))
        return [line for change in changes for line in change.lines]

    return [(serve, "commit", commit)]


def claim_not_flushed() -> Patches:
    claim = dropping.claim
    return [(dropping, "claim", lambda files, run, wanted: claim(Blind(files), run, wanted))]


def written_in_place() -> Patches:
    """A drop is written under its own name, not under another one first."""

    def put(files, nonce, drops):
        for drop in drops:
            path = layout.in_box(drop.box, drop.name)
            files.write(path, drop.data)
            files.sync([path])
        files.sync(sorted({drop.box for drop in drops}))
        return [None] * len(drops)

    return [(dropping, "put", put)]


# -- what is not checked -------------------------------------------------------------------------------


def verified_and_read_again() -> Patches:
    """The server admits what the file holds now, not what it has verified."""

    def write(files, change, takes=True):
        if change.origin is None and change.target is State.QUEUED:
            change.writes = pack.split(files.read(change.served[0], 1 << 26), layout.JOB_PARTS)
        _write(files, change, takes)

    return [(moving, "_write", write)]


def no_signature_is_checked() -> Patches:
    """Neither by the server nor by whoever runs a job."""
    return [(Unproven, "prove", lambda self, message: self.key)]


def results_are_not_bound_to_their_job() -> Patches:
    """The name of the file says for which job a result is."""
    read = look.Look._receipt

    def receipt(self, parts, claimed):
        return replace(read(self, parts, claimed), job=claimed.job)

    return [
        (look.Look, "_receipt", receipt),
        (look.Look, "_check_belongs", lambda self, record, job: None),
        (decide.Decider, "_why_not_settle", lambda self, entry, seen: ""),
    ]


def replays_are_accepted() -> Patches:
    return [
        (look.Look, "_where", lambda self, job: None),
        (look.Look, "_digest", lambda self, state, job: b""),
    ]


# -- claims and attempts -------------------------------------------------------------------------------


def claim_by_rename_of_the_job() -> Patches:
    def claim(files, run, wanted):
        won = []
        for job, _ in wanted:
            try:
                files.move(layout.job_folder(State.QUEUED, job), layout.job_folder(State.RUNNING, job))
                won.append(True)
            except FileAnswer:
                won.append(False)
        return won

    return [(dropping, "claim", claim)]


def claim_that_replaces() -> Patches:
    """A lock is renamed into place, which is not exclusive."""

    def claim(files, run, wanted):
        text = files.read(layout.heartbeat(run), 1 << 16)
        for job, attempt in wanted:
            files.drop(layout.in_tmp(f"{run}.{job}"), layout.lock(job, attempt), text)
        return [True] * len(wanted)

    return [(dropping, "claim", claim)]


def claim_without_nonce() -> Patches:
    """A lock of the same worker counts as one's own, whatever run of it made that."""

    def claim(files, run, wanted):
        won = []
        for job, attempt in wanted:
            lock = layout.lock(job, attempt)
            try:
                files.link(layout.heartbeat(run), lock)
            except Exists:
                found = dropping.read_worker(files.read(lock, 1 << 16))
                won.append(found.worker == run.split(".")[0])
                continue
            won.append(True)
        return won

    return [(dropping, "claim", claim)]


def lock_not_read_again() -> Patches:
    """After a lost reply a claim is taken for lost, and nobody looks for what was forgotten."""

    def claimed(files, run, doubtful):
        return []

    return [
        (dropping, "holds", lambda files, run, lock: False),
        (dropping, "claimed_after_all", claimed),
        (strays.Strays, "overdue", lambda self, running, worker, mine, now: []),
    ]


def no_attempt_bump() -> Patches:
    def give_back(self, entry, verb, why, counts):
        attempt = entry.attempt
        _give_back(self, entry, verb, why, counts)
        change = self._changes[entry.job]
        change.writes.pop(layout.lease_name(attempt), None)
        entry.attempt = attempt

    return [(decide.Decider, "_give_back", give_back)]


def attempts_without_end() -> Patches:
    """Losses are not counted: what kills its workers is tried for ever."""

    def give_back(self, entry, verb, why, counts):
        _give_back(self, entry, verb, why, False)

    return [(decide.Decider, "_give_back", give_back)]


def late_result_overwrites() -> Patches:
    def late(self, seen):
        if seen.known in (State.DONE, State.FAILED):
            change = self._change_of(seen)
            change.writes.update(seen.parts)
            change.removes.append(seen.path)
        else:
            self._loose(seen.path)

    def change_of(self, seen):
        job = seen.receipt.job
        return self._changes.setdefault(job, moving.Change(job, origin=seen.known, durable=True))

    return [(decide.Decider, "_late", late), (decide.Decider, "_change_of", change_of)]


# -- time ----------------------------------------------------------------------------------------------


def lease_judged_by_wall_clock() -> Patches:
    """The stamp of the heartbeat file against the server's own date."""

    def lost_runs(self):
        now = self._clock.wall()
        for run in [run for run, jobs in self.book.by_run.items() if jobs]:
            found = self._fingerprint(run)
            if found is not None and now - found.mtime > self.settings.lease:
                self._log(f"worker {run}: not heard for {self.settings.lease:g} s, its jobs go back")
                yield serve.RunLost(run)

    return [(serve.Server, "_lost_runs", lost_runs)]


def heartbeat_without_a_change() -> Patches:
    """The file is set to the size that it has."""

    def renew(files, run, size, beat):
        files.resize(layout.heartbeat(run), size)

    return [(dropping, "renew", renew)]


def rescan_disabled() -> Patches:
    """Events are taken for the truth."""

    def pause(self, moved):
        return 0.0 if moved and self._look.more else 1e9

    return [(serve.Server, "_pause", pause)]


def leases_live_for_ever() -> Patches:
    return [(leases.Leases, "observe", lambda self, now, fingerprints: [])]


# -- the order of things -------------------------------------------------------------------------------


def journal_before_the_move() -> Patches:
    def carry_out(self, changes):
        self._tell([line for change in changes for line in change.lines])
        _pass(self, changes)

    return [(serve.Server, "_carry_out", carry_out)]


def drops_taken_away_first() -> Patches:
    def carry_out(self, changes):
        self._put_away(changes)
        _pass(self, changes)

    return [(serve.Server, "_carry_out", carry_out)]


def nothing_is_undone() -> Patches:
    return [(recover, "_undo", lambda files, folder, job, inside: None)]


def verdict_alone_is_believed() -> Patches:
    """A decision is carried out whether or not what belongs to it is whole."""
    return [(recover, "_is_whole", lambda word, parts, roster_check: True)]


# -- what this code really did -------------------------------------------------------------------------


def opening_trusts_what_was_not_flushed() -> Patches:
    return [(HostFiles, "sync_all", lambda self: None)]


def failed_flush_leaves_its_pages() -> Patches:
    def flush(files, changes):
        files.sync([path for change in changes for path in moving._written(change)])

    def sync_all(self):
        """As a flush that has failed before: it says nothing."""
        Disk.sync_all(self._disk)

    return [(moving, "_flush_writes", flush), (HostFiles, "sync_all", sync_all)]


def claim_in_doubt_not_flushed() -> Patches:
    def claimed(files, run, doubtful):
        return [key for key in doubtful if dropping.holds(files, run, layout.lock(*key))]

    return [(dropping, "claimed_after_all", claimed)]


def delivery_taken_for_a_stray() -> Patches:
    return [(monitor.Monitor, "_is_there", lambda self, path: False)]


def ended_attempt_is_run_again() -> Patches:
    return [(monitor, "is_over", lambda lease: False), (hand, "is_over", lambda lease: False)]


def accepted_and_ended_by_one_rename() -> Patches:
    return [(decide.Decider, "_is_new", lambda self, job: False)]


def unreadable_job_is_forgotten() -> Patches:
    class Forgetful(Book):
        @property
        def unreadable(self):
            return {}

        @unreadable.setter
        def unreadable(self, value):
            pass

    return [(recover, "Book", Forgetful)]


def what_ends_now_is_unknown() -> Patches:
    return [(decide.Decider, "_ends_now", lambda self, job: False)]


def roster_not_looked_for_again() -> Patches:
    """A look at the roster that failed is not made again for a while."""

    def refresh(self, files, now):
        if now - self._looked < rosters.EVERY:
            return
        self._looked = now
        found = files.stat(layout.ROSTER)
        if found != self._known:
            self._take(found, files.read(layout.ROSTER, rosters.LIMIT))

    return [(rosters.RosterFeed, "refresh", refresh)]


def lost_lease_is_not_missed() -> Patches:
    """A running job without its present lease is taken as it is."""

    def present(files, entry, last, wall):
        return recover._take_up(entry, last) if last else None

    return [(recover, "_present_lease", present)]


def reason_of_a_refusal_not_flushed() -> Patches:
    def refuse(files, changes):
        return moving.refuse(Blind(files), changes)

    return [(serve, "refuse", refuse)]


def late_result_stays_in_a_live_job() -> Patches:
    def was_ending(inside):
        return bool(inside & (recover._DELIVERED | {layout.VERDICT}))

    return [(recover, "_was_ending", was_ending)]


def first_come_first_served() -> Patches:
    def order(self, wall, per_needs=1000):
        queued = (entry for _, entry in sorted(self.entries.items()) if entry.state is State.QUEUED)
        return iter([entry for entry in queued if entry.job not in self.waiting][:per_needs])

    return [(Book, "order", order)]


FOUND_HERE: list[Callable[[], Patches]] = [
    opening_trusts_what_was_not_flushed, failed_flush_leaves_its_pages, claim_in_doubt_not_flushed,
    delivery_taken_for_a_stray, ended_attempt_is_run_again, accepted_and_ended_by_one_rename,
    unreadable_job_is_forgotten, what_ends_now_is_unknown, roster_not_looked_for_again,
    lost_lease_is_not_missed, reason_of_a_refusal_not_flushed,
    late_result_stays_in_a_live_job,
]  # fmt: skip
GALLERY: dict[str, Callable[[], Patches]] = {
    bug.__name__.replace("_", " "): bug
    for bug in [
        no_file_sync, no_folder_sync, acknowledged_before_the_flush, one_step_publish,
        claim_not_flushed, written_in_place, verified_and_read_again, no_signature_is_checked,
        results_are_not_bound_to_their_job, replays_are_accepted, claim_by_rename_of_the_job,
        claim_that_replaces, claim_without_nonce, lock_not_read_again, no_attempt_bump,
        attempts_without_end, late_result_overwrites, lease_judged_by_wall_clock,
        heartbeat_without_a_change, rescan_disabled, leases_live_for_ever, journal_before_the_move,
        drops_taken_away_first, nothing_is_undone, verdict_alone_is_believed, *FOUND_HERE,
    ]
}  # fmt: skip


# Where a bug shows; others show in any weather.
FOCUS: dict[str, Focus] = {
    "verified and read again": Focus(("forgery",)),
    "no signature is checked": Focus(("forgery",)),
    "results are not bound to their job": Focus(("forgery",)),
    "lock not read again": Focus(("reset", "lossy")),
    "late result overwrites": Focus(("cut", "freeze")),
    "one step publish": Focus((), {"nerve": 0.6}),
    "opening trusts what was not flushed": Focus((), {"nerve": 0.4}),
    "claim in doubt not flushed": Focus((), {
        "nerve": 0.5, "ordered_disk": False, "at_once": ("reset", "box loses power"), "faults": (),
        "sudden": 0.0, "workers": ((2, False, False),), "seconds": 60.0,
    }),
    "delivery taken for a stray": Focus(("kill server",)),
    "ended attempt is run again": Focus(
        ("kill worker", "box loses power"), {"lease": 4.0, "seconds": 60.0, "nerve": 0.2}
    ),
    "accepted and ended by one rename": Focus((), {"nerve": 0.8, "events_lost": 1.0, "ordered_disk": False}),
    "unreadable job is forgotten": Focus((), {
        "nerve": 0.4, "failing": ("read",), "at_once": ("kill server", "disk error"), "seconds": 60.0,
        "faults": (), "sudden": 0.0,
    }),
    "nothing is undone": Focus((), {"nerve": 0.4}),
    "verdict alone is believed": Focus((), {"nerve": 0.4}),
    "reason of a refusal not flushed": Focus(
        ("forgery",), {"nerve": 0.5, "at_once": ("box loses power",), "ordered_disk": False}
    ),
    "late result stays in a live job": Focus(
        (), {"nerve": 0.3, "failing": ("sync",), "at_once": ("disk error", "kill server"), "lease": 4.0}
    ),
    "roster not looked for again": Focus(("disk error",), {"failing": ("stat",)}),
    "what ends now is unknown": Focus((), {"events_lost": 1.0}),
}


UNFAIR = "first come first served"  # shows in a flood, not in the weather


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The shipped code with one bug in it."""
    patches = first_come_first_served() if name == UNFAIR else GALLERY[name]()
    with ExitStack() as stack:
        for owner, attribute, replacement in patches:
            stack.enter_context(patch.object(owner, attribute, replacement, create=True))
        yield

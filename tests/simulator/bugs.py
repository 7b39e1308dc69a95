"""Bugs that people make in such systems, each as patches of the shipped code: what goes where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dsage_spool import layout, pack
from dsage_spool.errors import Exists, FileAnswer
from dsage_spool.server import decide, leases, look, recover, serve
from dsage_spool.server.book import Book
from dsage_spool.signing import Unproven
from dsage_spool.spool import dropping, moving
from dsage_spool.states import State
from dsage_spool.worker import strays

Patches = list[tuple[Any, str, Any]]
_commit, _put, _write = moving.commit, dropping.put, moving._write
_give_back, _pass = decide.Decider._give_back, serve.Server._carry_out


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
            if found is not None and now - found[1] > self.settings.lease:
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


def first_come_first_served() -> Patches:
    def order(self, wall, per_needs=1000):
        queued = (entry for _, entry in sorted(self.entries.items()) if entry.state is State.QUEUED)
        return iter([entry for entry in queued if entry.job not in self.waiting][:per_needs])

    return [(Book, "order", order)]

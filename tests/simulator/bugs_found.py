"""Bugs that this code really had, until a harness found them; as patches, like those in `bugs`."""

from __future__ import annotations

from dsage_spool import layout
from dsage_spool.server import decide, recover, serve
from dsage_spool.server.book import Book
from dsage_spool.spool import dropping, moving
from dsage_spool.worker import hand, monitor, rosters

from .bugs import Blind, Patches
from .disk import Disk
from .doors import HostFiles

_NOT_ANEW = (recover, "_write_anew", lambda files, trusted: None)  # the second defence of these


def opening_trusts_what_was_not_flushed() -> Patches:
    return [(HostFiles, "sync_all", lambda self: None), _NOT_ANEW]


def failed_flush_leaves_its_pages() -> Patches:
    def flush(files, changes):
        files.sync([path for change in changes for path in moving._written(change)])

    def sync_all(self):
        """As a flush that has failed before: it says nothing."""
        Disk.sync_all(self._disk)

    return [(moving, "_flush_writes", flush), (HostFiles, "sync_all", sync_all), _NOT_ANEW]


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

"""What the server does about what it has seen: rows of observations and the changes they lead to."""

from __future__ import annotations

import hashlib

import pytest

from dsage_spool import layout, names, records
from dsage_spool.records import Envelope, Lease, Receipt, Request, Worker
from dsage_spool.server.book import Book, Entry
from dsage_spool.server.decide import NOT_AFTER_TOLERANCE, Decider
from dsage_spool.server.seen import (
    ClaimSeen,
    Delivered,
    JobDropped,
    Requested,
    RunLost,
    Unacceptable,
)
from dsage_spool.states import MOVES, State

WALL = 1_795_389_700.0
KIWI = Worker("kiwi", "kiwi.00000000", host="box")
FIG = Worker("fig", "fig.00000000")


def name(number: int) -> str:
    return names.make_job(WALL + number, number.to_bytes(4, "big"))


class Desk:
    """A decider, and short ways to say what it sees."""

    def __init__(self) -> None:
        self.book = Book()
        self.decider = Decider(self.book, lambda wall: "20200101T000000-0000000000")
        self.wall = WALL
        self.texts: dict[str, bytes] = {}

    def see(self, *seen):
        changes = self.decider.decide(seen, self.wall)
        stays = [c for c in changes if c.target is None and c.writes and c.origin is not State.HELD]
        assert not stays, "written and not moved"
        return changes

    def one(self, *seen):
        [change] = self.see(*seen)
        return change

    def dropped(
        self, number: int = 1, known=None, fates=None, digest=b"", coming=frozenset(), **fields
    ) -> JobDropped:
        envelope = Envelope("spool", name(number), fields.pop("submitter", "alice"), "source", **fields)
        text = records.make(envelope)
        self.texts[envelope.job] = text
        parts = {"envelope": text, "envelope.sig": b"s", "payload": b"p"}
        path = layout.drop(envelope.job)
        return JobDropped(path, envelope, parts, known, digest, fates or {}, coming)

    def job(self, number: int = 1, state: State = State.QUEUED, **fields) -> Entry:
        seen = self.dropped(number, **fields)
        self.see(seen)
        entry = self.book.entries[seen.envelope.job]
        if state is State.HELD:
            self.see(self.request("hold", number))
        elif state is State.RUNNING:
            self.see(self.claim(number))
        assert entry.state is state
        return entry

    def claim(self, number=1, worker=KIWI, attempt=1, enrolled=True) -> ClaimSeen:
        return ClaimSeen(layout.lock(name(number), attempt), name(number), attempt, worker, enrolled)

    def request(self, verb, number=1, submitter="alice", known=None, dropped=False) -> Requested:
        request = Request("spool", name(number), "00000000", submitter, verb)
        return Requested(layout.request(name(number), "00000000"), request, known, dropped)

    def delivered(self, outcome="ok", number=1, attempt=1, worker=KIWI, known=None, served=False, **fields):
        digest = hashlib.sha256(self.texts.get(name(number), b"")).hexdigest()
        values = {"envelope_sha256": digest, "wall_seconds": 2.0} | fields
        receipt = Receipt("spool", name(number), attempt, worker=worker.worker, run=worker.run, outcome=outcome, **values)
        parts = {"receipt": b"r", "receipt.sig": b"s", "result": b"42"}
        return Delivered(layout.result(name(number), attempt), receipt, parts, known, served)


@pytest.fixture
def desk():
    return Desk()


def verbs(change) -> list[str]:
    return [line.verb for line in change.lines]


def lease_in(change, attempt=1) -> Lease:
    return records.parse(Lease, change.writes[f"lease.{attempt}"])


# -- jobs -----------------------------------------------------------------------------------------


def test_a_good_job_is_accepted_as_it_was_read(desk):
    seen = desk.dropped()
    change = desk.one(seen)
    assert (change.origin, change.target, change.durable) == (None, State.QUEUED, True)
    assert change.writes == seen.parts and change.served == [seen.path]
    assert verbs(change) == ["accept"]
    assert [entry.job for entry in desk.book.order(WALL)] == [name(1)]


@pytest.mark.parametrize("known", [None, State.DONE, State.FAILED, State.CANCELLED])
def test_the_same_job_again_is_only_taken_away(desk, known):
    seen = desk.dropped()
    if known:
        digest = hashlib.sha256(seen.parts["envelope"]).digest()
        seen = desk.dropped(known=known, digest=digest)
    else:
        desk.see(seen)
    change = desk.one(seen)
    assert (change.target, change.removes, change.writes) == (None, [seen.path], {})


@pytest.mark.parametrize("known", [None, State.DONE, State.REJECTED])
def test_another_job_of_that_name_is_refused_under_a_fresh_name(desk, known):
    if known is None:
        desk.see(desk.dropped())
    change = desk.one(desk.dropped(title="other", known=known, digest=b"x" if known else b""))
    assert change.target is State.REJECTED and change.name != name(1)
    assert "it is another one" in change.writes["verdict"].decode()
    assert change.takes == {layout.drop(name(1)): "drop"}


@pytest.mark.parametrize("late, accepted", [(0, True), (NOT_AFTER_TOLERANCE, True), (NOT_AFTER_TOLERANCE + 1, False)])
def test_a_job_that_is_too_late_is_refused_with_some_tolerance_for_clocks(desk, late, accepted):
    change = desk.see(desk.dropped(not_after=int(WALL - late)))[0]
    assert (change.target is not State.REJECTED) == accepted


def test_what_nobody_can_use_goes_to_rejected_with_its_reason(desk):
    change = desk.one(Unacceptable("incoming/x\x1b", "its name is none of ours", ""))
    assert verbs(change) == ["reject"]
    verdict = change.writes["verdict"].decode()
    assert verdict.endswith(" rejected: its name is none of ours (came as incoming/x?)\n")


def test_garbage_does_not_spoil_the_name_of_a_real_job(desk):
    desk.job()
    change = desk.one(Unacceptable(layout.drop(name(1)), "garbage", name(1)))
    assert change.name != name(1)


# -- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb, state, end", [
    ("cancel", State.QUEUED, State.CANCELLED),
    ("cancel", State.HELD, State.CANCELLED),
    ("cancel", State.RUNNING, State.CANCELLED),
    ("hold", State.QUEUED, State.HELD),
    ("hold", State.HELD, None),
    ("hold", State.RUNNING, None),
    ("release", State.HELD, State.QUEUED),
    ("release", State.QUEUED, None),
    ("release", State.RUNNING, None),
])  # fmt: skip
def test_a_request_leads_to(desk, verb, state, end):
    desk.job(state=state)
    change = desk.one(desk.request(verb))
    assert (change.origin, change.target) == (state, end)
    assert change.served == [layout.request(name(1), "00000000")]
    assert bool(desk.decider.notes) == (end is None)


def test_a_cancelled_job_that_runs_loses_its_lock(desk):
    desk.job(state=State.RUNNING)
    change = desk.one(desk.request("cancel"))
    assert change.removes == [layout.lock(name(1), 1), layout.output(name(1), 1)]


def test_a_request_of_somebody_else_is_refused_and_changes_nothing(desk):
    desk.job()
    change = desk.one(desk.request("cancel", submitter="bob"))
    assert change.target is State.REJECTED
    assert desk.book.entries[name(1)].state is State.QUEUED


def test_a_request_about_an_ended_job_is_taken_away(desk):
    change = desk.one(desk.request("cancel", known=State.DONE))
    assert change.removes and not change.lines


def test_a_request_whose_job_is_on_its_way_in_waits_for_it(desk):
    assert desk.see(desk.request("cancel", dropped=True)) == []


def test_a_job_that_is_accepted_is_cancelled_by_the_next_pass_at_the_earliest(desk):
    change = desk.one(desk.dropped(), desk.request("cancel"))
    assert (change.target, verbs(change)) == (State.QUEUED, ["accept"]), "the request waits"
    change = desk.one(desk.request("cancel"))
    assert (change.origin, change.target) == (State.QUEUED, State.CANCELLED)
    assert desk.book.entries == {}


# -- claims ---------------------------------------------------------------------------------------


def test_a_claim_starts_a_job(desk):
    desk.job()
    change = desk.one(desk.claim())
    assert (change.origin, change.target, change.durable) == (State.QUEUED, State.RUNNING, False)
    lease = lease_in(change)
    assert (lease.worker, lease.run, lease.host, lease.since, lease.ended) == ("kiwi", KIWI.run, "box", WALL, 0.0)
    assert change.removes == change.served == []
    assert desk.book.locks == {f"{name(1)}.1.lock"} and desk.book.by_run == {KIWI.run: {name(1)}}


def test_a_claim_that_was_seen_already_is_left_alone(desk):
    desk.job(state=State.RUNNING)
    assert desk.see(desk.claim()) == []


@pytest.mark.parametrize("state, claim", [
    (State.QUEUED, {"attempt": 2}),
    (State.QUEUED, {"enrolled": False}),
    (State.HELD, {"attempt": 2}),
    (State.HELD, {"enrolled": False}),
    (State.RUNNING, {"worker": FIG}),
    (State.RUNNING, {"attempt": 2}),
    (State.QUEUED, {"number": 7}),
])  # fmt: skip
def test_a_claim_that_does_not_fit_is_removed(desk, state, claim):
    desk.job(state=state)
    seen = desk.claim(**claim)
    change = desk.one(seen)
    assert (change.target, change.removes, change.writes) == (None, [seen.path], {})
    assert (desk.book.entries[name(1)].state, desk.book.entries[name(1)].attempt) == (state, 1)


def held_beside_a_claim(desk, together: bool) -> list:
    """The worker may run the job for a moment before it hears of the hold."""
    desk.job()
    if together:
        return desk.see(desk.request("hold"), desk.claim())
    desk.see(desk.request("hold"))
    return desk.see(desk.claim())


@pytest.mark.parametrize("together", [True, False])
def test_a_claim_of_a_held_job_uses_up_its_attempt_number(desk, together):
    changes = held_beside_a_claim(desk, together)
    [change] = [change for change in changes if change.writes]
    lease = lease_in(change)
    assert (lease.run, lease.ended, lease.why, lease.counts) == (KIWI.run, WALL, "held", 1)
    assert change.durable and change.target is (State.HELD if together else None)
    assert [path for c in changes for path in c.removes] == [desk.claim().path]
    entry = desk.book.entries[name(1)]
    assert (entry.state, entry.attempt, entry.losses, entry.run) == (State.HELD, 2, 1, "")
    assert desk.book.locks == set() and desk.book.by_run.get(KIWI.run, set()) == set()


@pytest.mark.parametrize("together", [True, False])
def test_no_two_workers_run_a_job_under_one_number_after_a_hold(desk, together):
    held_beside_a_claim(desk, together)
    desk.see(desk.request("release"))
    [entry] = desk.book.order(WALL)
    assert f" {name(1)} 2 " in entry.next_line()
    assert desk.one(desk.claim(worker=FIG)).removes == [desk.claim().path]
    assert entry.state is State.QUEUED and entry.attempt == 2
    change = desk.one(desk.claim(worker=FIG, attempt=2))
    assert change.target is State.RUNNING and lease_in(change, 2).run == FIG.run


def test_who_claimed_beside_a_hold_may_still_deliver(desk):
    held_beside_a_claim(desk, together=True)
    assert desk.one(desk.delivered(worker=FIG)).target is State.REJECTED
    assert desk.one(desk.delivered()).target is State.DONE


# -- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.QUEUED, State.HELD, State.RUNNING])
@pytest.mark.parametrize("outcome", sorted(set(records.OUTCOMES) - {"returned"}))
def test_a_delivery_ends_a_job_wherever_it_is(desk, state, outcome):
    desk.job(state=state)
    seen = desk.delivered(outcome, error="ValueError: no")
    change = desk.one(seen)
    end = State.DONE if outcome == "ok" else State.FAILED
    assert (change.origin, change.target, change.durable) == (state, end, True)
    assert change.served == [seen.path]
    assert seen.parts.items() <= change.writes.items()
    assert list(change.writes)[-1] == "verdict"
    assert f" {end}: ".encode() in change.writes["verdict"]
    assert desk.book.entries == {} and desk.book.locks == set()


def test_a_job_that_was_claimed_and_done_between_two_passes_is_one_rename(desk):
    desk.job()
    change = desk.one(desk.claim(), desk.delivered())
    assert (change.origin, change.target) == (State.QUEUED, State.DONE)
    assert verbs(change) == ["start", "settle"]
    assert lease_in(change).worker == "kiwi" and desk.book.locks == set()


@pytest.mark.parametrize("delivery, reason", [
    ({"envelope_sha256": "0" * 64}, "other words"),
    ({"attempt": 2}, "never given out"),
    ({"worker": FIG}, "claimed by another worker than fig"),
])  # fmt: skip
def test_a_delivery_that_does_not_fit_is_refused(desk, delivery, reason):
    desk.job(state=State.RUNNING)
    change = desk.one(desk.delivered(**delivery))
    assert change.target is State.REJECTED and reason in change.lines[0].note
    assert desk.book.entries[name(1)].state is State.RUNNING


@pytest.mark.parametrize("known", [State.DONE, State.FAILED, State.CANCELLED])
def test_a_delivery_for_an_ended_job_is_kept_beside_the_first(desk, known):
    seen = desk.delivered(attempt=2, known=known)
    change = desk.one(seen)
    assert (change.origin, change.target, change.takes) == (known, None, {seen.path: "late.2"})
    assert change.writes == {} and change.lines == []


@pytest.mark.parametrize("delivery", [
    {"known": State.DONE, "served": True},
    {"known": State.DONE, "outcome": "returned"},
    {"known": State.REJECTED},
])  # fmt: skip
def test_a_delivery_that_tells_nothing_new_is_taken_away(desk, delivery):
    seen = desk.delivered(**delivery)
    assert desk.one(seen).removes == [seen.path]


def test_of_two_results_in_one_pass_the_first_counts_and_the_other_is_kept(desk):
    entry = desk.job(state=State.RUNNING)
    desk.see(RunLost(KIWI.run))
    desk.see(desk.claim(worker=FIG, attempt=2))
    assert entry.attempt == 2
    change = desk.one(desk.delivered(attempt=1), desk.delivered(attempt=2, worker=FIG))
    assert change.target is State.DONE
    assert change.takes == {layout.result(name(1), 2): "late.2"}
    assert layout.lock(name(1), 2) in change.removes


def test_a_delivery_for_no_job_is_refused(desk):
    assert desk.one(desk.delivered(number=9)).target is State.REJECTED


# -- claims that end ------------------------------------------------------------------------------


def test_a_lost_run_gives_all_its_jobs_back_under_the_next_attempt(desk):
    entries = [desk.job(number, State.RUNNING) for number in (1, 2)]
    changes = desk.see(RunLost(KIWI.run))
    assert [(change.target, change.durable, verbs(change)) for change in changes] == [
        (State.QUEUED, True, ["expire"])
    ] * 2
    assert [(entry.attempt, entry.losses) for entry in entries] == [(2, 1)] * 2
    assert [change.lines[0].attempt for change in changes] == ["1", "1"]
    assert KIWI.run not in desk.book.by_run


def test_a_run_without_jobs_is_no_loss(desk):
    assert desk.see(RunLost("nobody.00000000")) == []


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_job_that_loses_all_its_attempts_is_buried(desk, attempts):
    desk.job(attempts=attempts)
    for attempt in range(1, attempts + 1):
        desk.see(desk.claim(attempt=attempt))
        change = desk.one(RunLost(KIWI.run))
    assert verbs(change) == ["bury"] and change.target is State.FAILED
    assert f"lost {attempts} times" in change.writes["verdict"].decode()


@pytest.mark.parametrize("seconds, losses", [(0.0, 0), (1.5, 1)])
def test_a_claim_that_was_given_back_counts_only_if_the_job_had_begun(desk, seconds, losses):
    entry = desk.job(state=State.RUNNING)
    change = desk.one(desk.delivered("returned", wall_seconds=seconds))
    assert verbs(change) == ["return"] and (entry.attempt, entry.losses) == (2, losses)
    assert lease_in(change).counts == losses and lease_in(change).ended == WALL
    assert change.served and change.removes[0] == layout.lock(name(1), 1)


def test_a_claim_that_was_given_back_too_late_changes_nothing(desk):
    entry = desk.job(state=State.RUNNING)
    desk.see(RunLost(KIWI.run))
    change = desk.one(desk.delivered("returned"))
    assert change.target is None and change.served and entry.attempt == 2


# -- dates and predecessors -----------------------------------------------------------------------


def offered(desk) -> list[str]:
    return [entry.job for entry in desk.book.order(desk.wall)]


def test_a_job_is_not_offered_before_its_date(desk):
    desk.job(not_before=int(WALL + 100))
    assert offered(desk) == []
    desk.wall += 101
    desk.see()
    assert offered(desk) == [name(1)]


def test_a_job_that_still_waits_after_its_last_date_fails(desk):
    desk.job(not_after=int(WALL + 100))
    desk.wall += 101
    change = desk.one()
    assert verbs(change) == ["fail"] and "not-after" in change.lines[0].note


def test_a_job_that_runs_when_its_last_date_comes_goes_on(desk):
    desk.job(state=State.RUNNING, not_after=int(WALL + 100))
    desk.wall += 101
    assert desk.see() == []


@pytest.mark.parametrize("state", [State.QUEUED, State.HELD])
@pytest.mark.parametrize("outcome, end", [("ok", None), ("raised", State.CANCELLED)])
def test_a_job_waits_for_another_and_shares_its_bad_end(desk, state, outcome, end):
    desk.job(1, State.RUNNING)
    waiting = desk.job(2, state, after=(name(1),))
    assert offered(desk) == []
    changes = {change.job: change for change in desk.see(desk.delivered(outcome))}
    if end:
        assert changes[name(2)].target is end
        assert f"it was to run after {name(1)}" in changes[name(2)].lines[0].note
    else:
        assert waiting.state is state
        assert offered(desk) == ([name(2)] if state is State.QUEUED else [])


def test_a_hold_and_a_release_do_not_let_a_job_run_before_its_turn(desk):
    desk.job(1)
    desk.job(2, after=(name(1),))
    desk.job(3, not_before=int(WALL + 100))
    for number in (2, 3):
        desk.see(desk.request("hold", number))
        desk.see(desk.request("release", number))
    assert offered(desk) == [name(1)]
    desk.wall += 101
    desk.see(desk.claim(1), desk.delivered("ok", 1))
    assert offered(desk) == [name(2), name(3)]


def test_a_chain_of_jobs_falls_in_one_pass(desk):
    for number in (1, 2, 3):
        desk.job(number, after=(name(number - 1),) if number > 1 else ())
    changes = desk.see(desk.request("cancel", 1))
    assert [change.target for change in changes] == [State.CANCELLED] * 3


@pytest.mark.parametrize("fate, end", [
    (State.DONE, State.QUEUED), (State.FAILED, State.CANCELLED), (State.CANCELLED, State.CANCELLED),
    (None, State.REJECTED),
])  # fmt: skip
def test_a_job_after_one_that_has_ended(desk, fate, end):
    change = desk.one(desk.dropped(2, after=(name(1),), fates={name(1): fate}))
    if end is State.CANCELLED:
        assert change.target is State.QUEUED and not list(desk.book.order(WALL)), "never offered"
        change = desk.one()
    assert change.target is end


def test_what_names_a_job_that_ends_in_the_same_pass_waits_for_the_next(desk):
    desk.job(1)
    after, again = desk.dropped(2, after=(name(1),)), desk.dropped(1)
    changes = desk.see(desk.request("cancel"), after, again, desk.request("hold"))
    assert [(change.job, verbs(change)) for change in changes if change.lines] == [(name(1), ["cancel"])]


def test_nothing_is_done_about_a_job_that_cannot_be_read(desk):
    desk.dropped(1)
    desk.book.unreadable[name(1)] = State.RUNNING
    seen = [desk.claim(), desk.delivered(), desk.request("cancel"), desk.dropped(1)]
    assert desk.see(*seen) == []
    desk.job(2, after=(name(1),))
    assert not list(desk.book.order(WALL)), "it may still end"


# -- all together ---------------------------------------------------------------------------------


def test_every_line_that_is_decided_is_a_move_of_the_table(desk):
    desk.job(1, State.RUNNING)
    desk.job(2, State.RUNNING)
    for changes in (desk.see(desk.delivered()), desk.see(RunLost(KIWI.run)), desk.see(desk.request("cancel", 2))):
        for line in (line for change in changes for line in change.lines):
            sources, end = MOVES[line.verb]
            assert State(line.origin) in sources and State(line.target) is end


def test_a_chain_may_be_longer_than_pythons_stack(desk):
    for number in range(1, 2500):
        desk.job(number, after=(name(number - 1),) if number > 1 else ())
    changes = desk.see(desk.request("cancel", 1))
    assert len(changes) == 2499 and desk.book.entries == {}


def test_a_job_and_its_follower_may_run_out_of_date_together(desk):
    desk.job(1, not_after=int(WALL + 100))
    desk.job(2, not_after=int(WALL + 100), after=(name(1),))
    desk.wall += 101
    assert [change.target for change in desk.see()] == [State.FAILED] * 2


def test_a_claim_before_its_turn_is_removed(desk):
    desk.job(1)
    desk.job(2, after=(name(1),))
    desk.job(3, not_before=int(WALL + 100))
    for number in (2, 3):
        seen = desk.claim(number)
        assert desk.one(seen).removes == [seen.path]
    desk.wall += 101
    assert desk.one(desk.claim(3)).target is State.RUNNING  # its time has come since the last look


def test_a_job_waits_in_the_drop_box_for_an_earlier_one_that_is_still_there(desk):
    assert desk.see(desk.dropped(2, after=(name(1),), coming=frozenset({name(1)}))) == []
    desk.job(1)
    assert desk.one(desk.dropped(2, after=(name(1),), coming=frozenset({name(1)}))).target is State.QUEUED


def test_jobs_that_wait_for_each_other_are_not_waited_for(desk):
    def dropped(number: int, other: int):
        return desk.dropped(number, after=(name(other),), coming=frozenset({name(other)}))

    assert desk.one(dropped(1, 1)).target is State.REJECTED
    assert desk.see(dropped(2, 3), dropped(3, 4)) == [], "those may still come in"
    assert desk.one(dropped(4, 2)).target is State.REJECTED


def test_a_job_waits_for_one_that_comes_in_with_it_under_a_later_name(desk):
    """Its submitter's clock was set back."""
    follower = desk.dropped(1, after=(name(2),), coming=frozenset({name(2)}))
    assert [change.job for change in desk.see(follower, desk.dropped(2))] == [name(2)]
    assert desk.one(follower).target is State.QUEUED

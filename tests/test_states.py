"""The table of moves: nothing is stranded, nothing moves that may not."""

from __future__ import annotations

import itertools

import pytest

from dsage_spool.states import FLOW, JOB_FOLDERS, LIVE, MOVES, TERMINAL, State, target

# Who has to act for a verb to take place: all others may be away for ever.
BY_SERVER_ALONE = {"expire", "bury", "accept", "reject"}
PAIRS = list(itertools.product(MOVES, State))


def test_states_are_live_or_ended_or_on_their_way_in():
    assert LIVE | TERMINAL | {State.INCOMING} == set(State)
    assert not LIVE & TERMINAL
    assert set(FLOW) == set(State) and len(FLOW) == len(State)
    assert set(JOB_FOLDERS) == set(State) - {State.INCOMING}


@pytest.mark.parametrize("verb, state", PAIRS)
def test_a_move_is_made_only_from_where_the_table_says(verb, state):
    sources, end = MOVES[verb]
    if state in sources:
        assert target(verb, state) is end
    else:
        with pytest.raises(ValueError, match=f"no move {verb} from {state}"):
            target(verb, state)


def test_a_verb_that_is_none_is_no_move():
    with pytest.raises(KeyError):
        target("teleport", State.QUEUED)


def test_what_has_ended_never_moves_again():
    assert not [verb for verb, (sources, _) in MOVES.items() if TERMINAL & set(sources)]


def test_no_move_leads_back_to_incoming_or_stays_where_it_is():
    assert all(end is not State.INCOMING for _, end in MOVES.values())
    assert all(end not in sources for sources, end in MOVES.values())


@pytest.mark.parametrize("state", sorted(LIVE | {State.INCOMING}))
def test_every_state_can_end(state):
    reached = {state}
    for _ in State:
        reached |= {end for sources, end in MOVES.values() if reached & set(sources)}
    assert reached & TERMINAL


@pytest.mark.parametrize("state", [State.INCOMING, State.RUNNING])
def test_no_absence_strands_a_job(state):
    """Where a party has to act next, the server alone can take the job on if it never does."""
    assert any(state in MOVES[verb][0] for verb in BY_SERVER_ALONE)


def test_a_person_can_withdraw_whatever_has_not_ended():
    assert set(MOVES["cancel"][0]) == LIVE


def test_a_result_counts_wherever_the_job_is_by_then():
    assert set(MOVES["settle"][0]) == set(MOVES["fail"][0]) == LIVE


def test_a_state_is_written_as_its_folder():
    assert f"{State.DONE}" == str(State.DONE) == State.DONE.value == "done"

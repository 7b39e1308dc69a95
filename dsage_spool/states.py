"""The states of a job and the one table of moves between them.

A job's state is the folder it lies in, and nothing else. A move is one rename, made by the server.
Everything that decides whether a job may go from one state to another is in this file; it does no
I/O and does not know which party asks.
"""

from __future__ import annotations

from enum import Enum


class State(str, Enum):
    INCOMING = "incoming"
    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    def __str__(self) -> str:
        return self.value


# In the order in which a job passes them: who looks for a job looks in this order, since a job that
# moves on between two looks is then found in the later one.
FLOW = (
    State.INCOMING,
    State.HELD,
    State.QUEUED,
    State.RUNNING,
    State.DONE,
    State.FAILED,
    State.CANCELLED,
    State.REJECTED,
)
JOB_FOLDERS = tuple(state for state in FLOW if state is not State.INCOMING)
ENDS = FLOW[4:]  # the terminal states, in that order
TERMINAL = frozenset(ENDS)
LIVE = frozenset({State.QUEUED, State.HELD, State.RUNNING})

_ANY_LIVE = (State.QUEUED, State.HELD, State.RUNNING)

# verb: where it may start, where it ends
MOVES: dict[str, tuple[tuple[State, ...], State]] = {
    "accept": ((State.INCOMING,), State.QUEUED),
    "reject": ((State.INCOMING,), State.REJECTED),
    "start": ((State.QUEUED,), State.RUNNING),  # the server has seen a worker's claim
    "expire": ((State.RUNNING,), State.QUEUED),  # the worker was not heard for a lease
    "return": ((State.RUNNING,), State.QUEUED),  # the worker gave its claim back
    "settle": (_ANY_LIVE, State.DONE),  # also a late result, if there is none yet
    "fail": (_ANY_LIVE, State.FAILED),
    "bury": ((State.RUNNING,), State.FAILED),  # out of attempts
    "cancel": (_ANY_LIVE, State.CANCELLED),
    "hold": ((State.QUEUED,), State.HELD),
    "release": ((State.HELD,), State.QUEUED),
}


def target(verb: str, state: State) -> State:
    """Where `verb` takes a job that is in `state`; ValueError if the table has no such move."""
    sources, end = MOVES[verb]
    if state not in sources:
        raise ValueError(f"no move {verb} from {state}")
    return end

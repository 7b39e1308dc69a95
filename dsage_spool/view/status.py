"""`status`: a whole spool on one calm page, the same whether printed once or watched.

    what needs an eye first: is there a server, how many jobs are where, who works, what runs where
    since when, what comes next and why it waits, and who has used how much

Sections without content are left out. Nothing of the snapshot is trusted: every text goes through
`words.safe`.
"""

from __future__ import annotations

import threading
from typing import Callable, Iterable, Sequence, TextIO

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..client.snapshot import OwnerRow, Snapshot, WaitingRow, WorkerRow
from ..client.story import submitted
from ..errors import Unreachable
from ..queuefile import LINES_PER_NEEDS, Running
from ..states import FLOW, TERMINAL, State
from ..text import clean
from . import screen
from .tables import columns
from .words import age, folded, number, safe, several, short_names

ROWS = 10  # of each section, before the rest is only counted
OWNER = 14  # columns for an owner's name
NOTHING_OFFERED = "for a date, or for another job to end"
MORE_REASONS = 3  # rows further down that wait for another reason than those shown
ALWAYS = (State.QUEUED, State.RUNNING, State.DONE, State.FAILED)
COLOURS = {"running": "cyan", "done": "green", "failed": "red", "rejected": "red", "held": "yellow"}
INDENT = (0, 0, 0, 2)


def render(shot: Snapshot, now: float | None = None) -> RenderableType:
    """The page. `now` in seconds by the spool host's clock, where it is later than the snapshot."""
    now = shot.taken if now is None else now
    parts: list[RenderableType] = [_head(shot, now - shot.taken), *_states(shot)]
    parts += _workers(shot, now - shot.taken)
    parts += _running(shot, now)
    parts += _waiting(shot, now)
    parts += _owners(shot)
    return Group(*parts, *_helpful(shot))


def print_status(
    shot: Snapshot, file: TextIO, color: bool | None = None, width: int | None = None
) -> None:
    """Print the page once. `color` of None: on a terminal, unless NO_COLOR is set."""
    screen.print_view(render(shot), file, color, width)


def watch(
    take_snapshot: Callable[[], Snapshot],
    file: TextIO,
    every: float = 2.0,
    stop: Callable[[float], bool] | None = None,
    color: bool | None = None,
) -> None:
    """Draw the page over itself every `every` seconds, until ^C or until `stop` says so.

    `stop(seconds)` waits that long and answers whether to end: the `wait` of a threading.Event.
    While the spool is out of reach the last page stays, with a note. Where nothing can be drawn
    over, pages are printed one below the other.
    """
    pages = _pages(take_snapshot, every, stop or threading.Event().wait)
    try:
        if not screen.can_redraw(file):
            for page in pages:
                screen.print_view(Group(page, ""), file, color)
            return
        with screen.live_on(file, screen.may_colour(file, color), transient=False) as live:
            for page in pages:
                # The last line is empty: a terminal echoes ^C there, and must not begin a new one.
                live.update(Group(page, ""), refresh=True)
    except KeyboardInterrupt:
        return


def _pages(
    take_snapshot: Callable[[], Snapshot], every: float, stop: Callable[[float], bool]
) -> Iterable[RenderableType]:
    page: RenderableType = Text("")
    while True:
        try:
            page = render(take_snapshot())
            yield page
        except Unreachable as error:
            yield Group(page, _title("Out of reach, trying again", error.message, "yellow"))
        if stop(every):
            return


# -- the top -----------------------------------------------------------------------------------


def _head(shot: Snapshot, later: float) -> Table:
    head = columns("left", "right", grow=0)
    head.add_row(safe(shot.place, "bold"), _server(shot, later))
    return head


def _server(shot: Snapshot, later: float) -> Text:
    if shot.server_age is None:
        return Text("no server has been here yet", "yellow")
    ago = age(shot.server_age + later)
    name = clean(f"server {shot.server}".strip(), 30)
    if shot.server_alive:
        return Text.assemble((name, "green"), (f"  wrote {ago} ago", "dim"))
    return Text(f"{name} silent for {ago}", "bold red")


def _states(shot: Snapshot) -> list[RenderableType]:
    """Two lines: jobs on their way, and jobs that have ended."""
    counts = {clean(state, 20): count for state, count in list(shot.counts.items())[:ROWS]}
    if not any(counts.values()) and not shot.incoming:
        return []
    counts["incoming"] = shot.incoming
    shown = [state for state in FLOW if counts.get(state) or state in ALWAYS]
    rows = (
        [state for state in shown if state not in TERMINAL],
        [state for state in shown if state in TERMINAL],
    )
    return [Text("   ").join(_state(str(s), counts.get(s, 0)) for s in row) for row in rows]


def _state(state: str, count: int) -> Text:
    style = COLOURS.get(state, "bold") if count else "dim"
    return Text.assemble((number(count), style), (f" {state}", "" if count else "dim"))


def _title(text: str, note: str = "", style: str = "bold") -> Text:
    title = Text.assemble("\n", (text, style), ("  ", ""), (clean(note, 200), "dim"))
    title.no_wrap, title.overflow = True, "ellipsis"
    return title


def _section(title: Text, *parts: RenderableType) -> list[RenderableType]:
    return [title, *(Padding(part, INDENT) for part in parts)]


def _more(count: int, note: str = "") -> list[RenderableType]:
    return [Text(f"… and {number(count)} more{note}", "dim")] if count > 0 else []


# -- workers, running, owners ------------------------------------------------------------------


def _workers(shot: Snapshot, later: float) -> list[RenderableType]:
    if not shot.workers:
        return []
    alive = [row for row in shot.workers if row.alive]
    gone = [row for row in shot.workers if not row.alive]
    table = columns("left", "left", "right", "right", "left", "left", grow=5)
    shown = [*alive, *gone][:ROWS]
    for row in shown:
        table.add_row(*_worker(row, later))
    hidden = len(shot.workers) - len(shown)
    hidden_gone = len(gone) - sum(not row.alive for row in shown)
    note = f", {number(hidden_gone)} of them gone" if hidden_gone else ""
    return _section(_title("Workers", _strength(alive, gone)), table, *_more(hidden, note))


def _strength(alive: list[WorkerRow], gone: list[WorkerRow]) -> str:
    busy, slots = sum(row.busy for row in alive), sum(row.slots for row in alive)
    working = f"{len(alive)} alive, {number(busy)} of {several(slots, 'slot')} busy"
    return ", ".join([working] * bool(alive) + [f"{len(gone)} gone"] * bool(gone))


def _worker(row: WorkerRow, later: float) -> Sequence[Text]:
    style = "" if row.alive else "dim"
    slots = f"{number(row.busy)} of {number(row.slots)} busy" if row.alive else ""
    return (
        safe(row.name, style, 20),
        Text("alive", "green") if row.alive else Text("gone", "red"),
        Text(slots, "cyan" if row.busy else style),
        Text(f"heard {age(row.heard + later)} ago", "dim"),
        safe(row.python, "dim", 16),
        safe(row.host, "dim"),
    )


def _running(shot: Snapshot, now: float) -> list[RenderableType]:
    rows = shot.running
    if not rows:
        return []
    shown = rows[:ROWS]
    short = short_names(row.job for row in shown)
    table = columns("left", "left", "left", "right", "left", grow=4)
    for row in shown:
        table.add_row(*_run(row, short[row.job], now))
    title = _title("Running", several(max(len(rows), shot.counts.get("running", 0)), "job"))
    return _section(title, table, *_more(len(rows) - len(shown)))


def _run(row: Running, name: str, now: float) -> Sequence[Text]:
    again = f"  (attempt {number(row.attempt)})" if row.attempt > 1 else ""
    return (
        safe(name, "cyan"),
        safe(row.owner, limit=OWNER),
        safe(f"on {row.worker}", limit=18),
        Text(age(now - row.since), "dim"),
        safe(f"{clean(row.title, 200)}{again}"),
    )


def _owners(shot: Snapshot) -> list[RenderableType]:
    rows = sorted(shot.owners, key=_by_presence)
    if not rows:
        return []
    table = columns("left", "right", "right", "right")
    for row in rows[:ROWS]:
        table.add_row(
            safe(row.name, limit=24),
            _state("queued", row.queued),
            _state("running", row.running),
            Text(f"{age(row.use)} of recent use", "dim"),
        )
    title = _title("Owners", "who has used least recently goes first")
    return _section(title, table, *_more(len(rows) - ROWS))


def _by_presence(row: OwnerRow) -> tuple:
    return (-row.running, -row.queued, row.name)


# -- what waits, and why -----------------------------------------------------------------------


def _waiting(shot: Snapshot, now: float) -> list[RenderableType]:
    """The first jobs in order, then one for each reason that would otherwise stay unseen."""
    queued = max(shot.counts.get("queued", 0), len(shot.waiting))
    if not queued:
        return []
    picked = _picked(shot.waiting)
    short = short_names(row.job for _, row in picked)
    places = max((len(number(place)) for place, _ in picked), default=0)
    owners = max((cell_len(clean(row.owner, OWNER)) for _, row in picked), default=0)
    parts: list[RenderableType] = []
    for why in dict.fromkeys(row.why for _, row in picked):
        table = columns("right", "left", "left", "right", "left", grow=4)
        table.columns[0].min_width, table.columns[2].min_width = places, owners
        for place, row in picked:
            if row.why == why:
                table.add_row(*_next(place, row, short[row.job], now))
        parts += [Text.assemble(folded(_reason(why), "yellow", 220)), Padding(table, INDENT)]
    if not picked:
        why = NOTHING_OFFERED if shot.server_alive else "no server is running"
        parts.append(Text(why, "yellow"))
    title = _title("Waiting", several(queued, "job"))
    return _section(title, *parts, *_more(queued - len(picked) if picked else 0))


def _picked(rows: Sequence[WaitingRow]) -> list[tuple[int, WaitingRow]]:
    picked = list(enumerate(rows[:ROWS], 1))
    seen = {row.why for _, row in picked}
    for place, row in enumerate(rows[ROWS:], ROWS + 1):
        if len(picked) < ROWS + MORE_REASONS and row.why not in seen:
            seen.add(row.why)
            picked.append((place, row))
    return picked


def _reason(why: str) -> str:
    """One sentence for each worker is too much where there are many workers."""
    sentences = why.split("; ")
    if len(sentences) <= 3:
        return why
    return f"{'; '.join(sentences[:2])}; and so for {number(len(sentences) - 2)} more workers"


def _next(place: int, row: WaitingRow, name: str, now: float) -> Sequence[Text]:
    since = submitted(row.job)
    urgent = f"  (priority {row.priority:+,})" if row.priority else ""
    return (
        # Further down the queue file holds only the first of each kind: the count would be wrong.
        Text(number(place) if place <= LINES_PER_NEEDS else "", "dim"),
        safe(name),
        safe(row.owner, limit=OWNER),
        Text(age(now - since) if since is not None else "?", "dim"),
        safe(f"{clean(row.title, 200)}{urgent}"),
    )


# -- a word for beginners ----------------------------------------------------------------------


def _helpful(shot: Snapshot) -> list[RenderableType]:
    fresh = not (any(shot.counts.values()) or shot.incoming or shot.waiting or shot.running)
    hints = []
    if fresh:
        hints.append("nothing here yet: dsage-spool submit '2+2'")
    if not shot.server_alive:
        hints.append("nothing moves until a server runs on the spool's host: dsage-spool server")
    elif not any(row.alive for row in shot.workers):
        hints.append("nothing runs until a worker does: dsage-spool worker")
    return [Text(""), *(Text(hint, "dim") for hint in hints)] if hints else []

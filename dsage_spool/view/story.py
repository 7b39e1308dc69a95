"""`show JOB`: one job's story on one page, from who wanted what to what came of it.

Everything in a story but its state was written by others: each text goes through `words`.
"""

from __future__ import annotations

from typing import Iterable, TextIO

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..client.story import Check, Excerpt, Story
from ..records import Envelope, Lease, Receipt
from ..states import State
from . import screen
from .status import COLOURS, INDENT
from .tables import columns
from .words import age, folded, limit, moment, safe, several, size, span

Row = tuple[str, Text]
LABEL = 10  # columns


def render(story: Story) -> RenderableType:
    rows = [*_outcome(story), *_origin(story), *_attempts(story), *_receipt(story)]
    outputs = [part for name, text in story.outputs.items() for part in _output(name, text)]
    return Group(_head(story), "", _grid(rows), *outputs, "", _grid(_where(story)))


def print_story(
    story: Story, file: TextIO, color: bool | None = None, width: int | None = None
) -> None:
    """Print the page; `color` of None: on a terminal, unless NO_COLOR is set."""
    screen.print_view(render(story), file, color, width)


def _head(story: Story) -> Table:
    head = columns("left", "right", grow=0)
    title = story.envelope.title if story.envelope else ""
    style = COLOURS.get(str(story.state), "bold")
    head.add_row(safe(title or story.job, "bold"), Text(str(story.state), style))
    if title:
        head.add_row(safe(story.job, "dim"), Text(""))
    return head


def _grid(rows: Iterable[Row]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False, expand=True)
    grid.add_column(width=LABEL, no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, text in rows:
        grid.add_row(Text(label, "dim"), text)
    return grid


# -- how it ended, or why it has not -----------------------------------------------------------


def _outcome(story: Story) -> Iterable[Row]:
    if story.verdict:
        style = "red" if story.state in (State.FAILED, State.REJECTED) else ""
        yield "verdict", folded(story.verdict.partition(" ")[2] or story.verdict, style)
    for label, why in zip(_once("waits", story.waits), story.waits):
        yield label, folded(why, "yellow")
    for label, problem in zip(_once("problems", story.problems), story.problems):
        yield label, folded(problem, "red")


def _once(label: str, rows: list) -> list[str]:
    return [label] + [""] * (len(rows) - 1)


# -- who wanted what ---------------------------------------------------------------------------


def _origin(story: Story) -> Iterable[Row]:
    if story.submitted is not None:
        ago = age(story.taken - story.submitted)
        yield "submitted", Text(f"{moment(story.submitted)}, {ago} ago")
    if story.envelope:
        yield "owner", _checked(story.envelope.submitter, story.envelope_check)
        yield from _wish(story.envelope)
    elif story.envelope_check.why:
        yield "envelope", _checked("", story.envelope_check)


def _checked(name: str, check: Check) -> Text:
    if check.verified:
        return Text.assemble(safe(name), ("  signature verified", "green"))
    return Text.assemble(safe(name), "  ", folded(f"NOT verified: {check.why}", "bold red", 300))


def _wish(envelope: Envelope) -> Iterable[Row]:
    extra = [f"priority {envelope.priority:+,}"] if envelope.priority else []
    extra += [f"batch {envelope.batch}"] if envelope.batch else []
    yield "kind", folded(", ".join([envelope.kind, *extra]))
    if envelope.needs:
        yield "needs", folded(" ".join(envelope.needs))
    yield "limits", Text(", ".join(_limits(envelope)))
    for label, other in zip(_once("after", list(envelope.after)), envelope.after):
        yield label, safe(other)
    if envelope.not_before:
        yield "not before", Text(moment(envelope.not_before))
    if envelope.not_after:
        yield "not after", Text(moment(envelope.not_after))


def _limits(envelope: Envelope) -> Iterable[str]:
    yield several(envelope.attempts, "attempt")
    if envelope.time_limit:
        yield f"{age(envelope.time_limit)} of time"
    if envelope.memory_limit:
        yield f"{limit(envelope.memory_limit)} of memory"
    if envelope.output_limit:
        yield f"{limit(envelope.output_limit)} of output"


# -- who tried, and what the worker says of it -------------------------------------------------


def _attempts(story: Story) -> Iterable[Row]:
    for lease in story.leases:
        yield f"attempt {lease.attempt:,}"[:LABEL], _lease(lease, story)


def _lease(lease: Lease, story: Story) -> Text:
    where = f" on {lease.host}" if lease.host else ""
    text = Text.assemble(
        safe(lease.worker, limit=64), safe(where, limit=80), (f"  {moment(lease.since)}", "dim")
    )
    if lease.ended:
        held = span(lease.ended - lease.since)
        return text.append_text(Text(f", {held}: ", "dim")).append_text(safe(lease.why or "ended"))
    if story.state is State.RUNNING:
        return text.append_text(Text(f", for {age(story.taken - lease.since)}", "cyan"))
    return text


def _receipt(story: Story) -> Iterable[Row]:
    receipt = story.receipt
    if receipt is None:
        if story.receipt_check.why:
            yield "receipt", _checked("", story.receipt_check)
        return
    who = f"{receipt.worker} on {receipt.host}" if receipt.host else receipt.worker
    yield "ran by", _checked(who, story.receipt_check)
    yield "outcome", folded(", ".join(_end(receipt)))
    yield "took", Text(", ".join(_took(receipt)))
    if receipt.value:
        yield "value", folded(receipt.value)


def _end(receipt: Receipt) -> Iterable[str]:
    yield receipt.outcome
    if receipt.exit:
        yield f"exit status {receipt.exit:,}"
    if receipt.signal:
        yield f"signal {receipt.signal:,}"
    if receipt.error:
        yield receipt.error
    if receipt.python:
        yield f"under {receipt.python}"


def _took(receipt: Receipt) -> Iterable[str]:
    yield span(receipt.wall_seconds)
    yield f"{span(receipt.cpu_seconds)} of processor"
    if receipt.peak_memory:
        yield f"{size(receipt.peak_memory)} of memory at most"


# -- what it printed, and where it lies --------------------------------------------------------


def _output(name: str, text: Excerpt) -> Iterable[RenderableType]:
    if not text.size:
        return
    head = Text.assemble("\n", safe(name, "bold"), ("  " + size(text.size), "dim"))
    if text.signed is False:
        head.append("  NOT what the worker signed", "bold red")
    yield head
    lines = [safe(line, limit=2000) for line in text.first]
    if text.left_out:
        lines.append(Text(f"… {size(text.left_out)} left out …", "dim"))
    lines += [safe(line, limit=2000) for line in text.last]
    for line in lines:
        line.end = "\n"
        yield Padding(line, INDENT)


def _where(story: Story) -> Iterable[Row]:
    place = f"{story.place}/" if story.place else ""
    yield "folder", folded(place + story.folder)
    if story.sizes:
        files = ", ".join(f"{name} {size(count)}" for name, count in story.sizes.items())
        yield "files", folded(files, "dim")

"""Where views are drawn: is it a terminal, how wide, may it have colour; and one way to print.

Colour: what the caller says, else only on a terminal, and never with NO_COLOR or TERM=dumb. Without
colour no escape sequence is written at all. Characters that the file's encoding lacks are replaced.
"""

from __future__ import annotations

import io
import os
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live

USUAL_WIDTH = 80
_PLAIN = str.maketrans({"…": "~", "·": "-", "—": "-"})


def is_terminal(file: TextIO) -> bool:
    try:
        return file.isatty()
    except (AttributeError, ValueError):  # a closed file, or hardly a file
        return False


def can_redraw(file: TextIO) -> bool:
    """Whether lines can be drawn over again."""
    return is_terminal(file) and os.environ.get("TERM") != "dumb" and _takes(file, "…·━")


def may_colour(file: TextIO, color: bool | None) -> bool:
    if color is not None:
        return color
    dull = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return is_terminal(file) and not dull


def width_of(file: TextIO) -> int:
    """Columns of the terminal; 80 where there is none."""
    try:
        columns = os.get_terminal_size(file.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return USUAL_WIDTH
    return columns or USUAL_WIDTH


def console_on(
    file: TextIO, color: bool, width: int | None = None, redraw: bool = False
) -> Console:
    """A rich console that takes nothing for markup; `redraw` where lines are to be drawn over."""
    return Console(
        file=file,
        width=width,
        force_terminal=color or redraw,
        force_interactive=redraw,
        force_jupyter=False,
        color_system="standard" if color else None,
        no_color=not color,
        legacy_windows=False,
        markup=False,
        highlight=False,
        emoji=False,
    )


def live_on(file: TextIO, color: bool, transient: bool) -> Live:
    """A part of the screen that is drawn over when it is told to, and at no other time."""
    return Live(
        console=console_on(file, color, redraw=True),
        auto_refresh=False,
        transient=transient,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def text_of(view: RenderableType, width: int, color: bool = False) -> str:
    """A view as text: lines without blanks at their ends where there is no colour."""
    buffer = io.StringIO()
    console_on(buffer, color, width).print(view)
    if color:
        return buffer.getvalue()
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def print_view(
    view: RenderableType, file: TextIO, color: bool | None = None, width: int | None = None
) -> None:
    text = text_of(view, width or width_of(file), may_colour(file, color))
    if not _takes(file, text):
        encoding = file.encoding or "ascii"
        text = text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    file.write(text)
    file.flush()


def _takes(file: TextIO, text: str) -> bool:
    try:
        text.encode(getattr(file, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True

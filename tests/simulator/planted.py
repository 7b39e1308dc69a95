"""The gallery of planted bugs: the oracle must catch every one of them.

`GALLERY` maps a name to a function that answers what to put in the place of what; `FOCUS` says in which
weather a bug shows that does not show in any.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Callable, Iterator
from unittest.mock import patch

from . import bugs, bugs_found
from .bugs import Patches
from .weather import Focus


def _bugs_of(module: object) -> list[Callable[[], Patches]]:
    """The public functions of a module, in its order."""
    found = vars(module).values()
    mine = [one for one in found if getattr(one, "__module__", "") == module.__name__]
    return [one for one in mine if not isinstance(one, type) and not one.__name__.startswith("_")]


UNFAIR = "first come first served"  # shows in a flood, not in the weather
GALLERY: dict[str, Callable[[], Patches]] = {
    bug.__name__.replace("_", " "): bug for module in (bugs, bugs_found) for bug in _bugs_of(module)
}
_first_come_first_served = GALLERY.pop(UNFAIR)

# Where a bug shows; others show in any weather.
FOCUS: dict[str, Focus] = {
    "verified and read again": Focus(("forgery",)),
    "no signature is checked": Focus(("forgery",)),
    "results are not bound to their job": Focus(("forgery",)),
    "lock not read again": Focus(("reset", "lossy")),
    "late result overwrites": Focus(("cut", "freeze")),
    "one step publish": Focus((), {"nerve": 0.6}),
    "opening trusts what was not flushed": Focus(
        (), {"nerve": 0.4, "at_once": ("kill server", "box loses power")}
    ),
    "failed flush leaves its pages": Focus(
        (), {"nerve": 0.3, "failing": ("sync",), "at_once": ("disk error", "box loses power")}
    ),
    "claim in doubt not flushed": Focus((), {
        "nerve": 0.5, "ordered_disk": False, "at_once": ("reset", "box loses power"), "faults": (),
        "sudden": 0.0, "workers": ((2, False, False),), "seconds": 60.0,
    }),
    "delivery taken for a stray": Focus(("kill server",)),
    "ended attempt is run again": Focus(("box loses power", "kill server"), {
        "lease": 4.0, "seconds": 60.0, "nerve": 0.1, "at_once": ("box loses power", "kill worker"),
    }),
    "accepted and ended by one rename": Focus((), {
        "nerve": 0.3, "events_lost": 1.0, "ordered_disk": False, "at_once": ("box loses power",),
        "lease": 16.0, "seconds": 30.0,
    }),
    "unreadable job is forgotten": Focus((), {
        "nerve": 0.4, "failing": ("read",), "at_once": ("kill server", "disk error"), "seconds": 60.0,
        "faults": (), "sudden": 0.0,
    }),
    "nothing is undone": Focus((), {"nerve": 0.4}),
    "verdict alone is believed": Focus((), {"nerve": 0.4}),
    "reason of a refusal not flushed": Focus(
        ("forgery",), {"nerve": 0.5, "at_once": ("box loses power",), "ordered_disk": False}
    ),
    "late result stays in a live job": Focus(("freeze", "cut"), {
        "nerve": 0.3, "events_lost": 1.0, "failing": ("sync",),
        "at_once": ("disk error", "disk error", "kill server"),
    }),
    "roster not looked for again": Focus(("disk error",), {"failing": ("stat",)}),
    "what ends now is unknown": Focus(
        (), {"events_lost": 1.0, "lease": 16.0, "seconds": 30.0, "sudden": 0.0}
    ),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The shipped code with one bug in it."""
    patches = _first_come_first_served() if name == UNFAIR else GALLERY[name]()
    with ExitStack() as stack:
        for owner, attribute, replacement in patches:
            stack.enter_context(patch.object(owner, attribute, replacement, create=True))
        yield

"""Hand the roster to the children, who check signatures with it; again whenever it changes."""

from __future__ import annotations

from .. import layout
from ..children import Children
from ..files import Files

EVERY = 5.0  # seconds between looks at the spool's roster
LIMIT = 16 << 20  # bytes


class RosterFeed:
    """`own` is a roster that this machine's owner trusts instead of the one in the spool."""

    def __init__(self, children: Children, own: bytes | None) -> None:
        self._children = children
        self._own = own
        self._looked = float("-inf")
        self._known: object = None

    def refresh(self, files: Files, now: float) -> None:
        if now - self._looked < EVERY:
            return
        if self._own is not None:
            self._take("own", self._own)
        else:
            found = files.stat(layout.ROSTER)
            if found != self._known:
                self._take(found, files.read(layout.ROSTER, LIMIT))
        self._looked = now  # only now: a look that failed is made again before anything is claimed

    def _take(self, version: object, text: bytes) -> None:
        if version != self._known:
            self._children.set_roster(text)
            self._known = version

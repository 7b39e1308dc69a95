"""Text from outside, made harmless for a terminal, a log line or a record.

Titles, names, outputs and error texts are written by other people's machines. `clean` removes what
could move a cursor, write a clipboard or hide characters: control characters (C0, C1, DEL), escapes,
bidirectional overrides (CVE-2021-42574) and zero-width characters.
"""

from __future__ import annotations

import re

_HOSTILE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_HOSTILE_IN_LINES = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def clean(text: str, limit: int = 500) -> str:
    """One harmless line of at most `limit` characters; each hostile character becomes `?`."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return _HOSTILE.sub("?", text)


def clean_lines(text: str) -> str:
    """The same for text of several lines; tabs and line ends stay."""
    return _HOSTILE_IN_LINES.sub("?", text.replace("\r\n", "\n"))

"""`spool.json`: the format version and id of a spool, its times and its limits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from .. import layout, timing
from ..errors import BadFormat, BadVersion, Gone, NotRegular, UsageError
from ..files import Files

FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """What all parties of one spool share. Sizes in bytes, times in seconds."""

    id: str
    made: str = ""
    lease: float = timing.DEFAULT_LEASE
    payload_limit: int = 64 << 20
    result_limit: int = 64 << 20

    @property
    def times(self) -> timing.Times:
        return timing.Times(self.lease)

    @property
    def drop_limit(self) -> int:
        """How large a dropped job file may be: payload, and some text."""
        return self.payload_limit + (256 << 10)

    @property
    def delivery_limit(self) -> int:
        """How large a delivery may be: result, what was printed, and some text."""
        return 2 * self.result_limit + (1 << 20)


def make(settings: Settings) -> bytes:
    values = {"format": FORMAT, **asdict(settings)}
    return (json.dumps(values, indent=2) + "\n").encode()


def parse(data: bytes) -> Settings:
    try:
        values = json.loads(data)
        version = values.pop("format")
    except (ValueError, KeyError, AttributeError):
        raise BadFormat("spool.json: not JSON with a `format`") from None
    if version != FORMAT:
        raise BadVersion(
            f"spool.json: format {version!r}, and this release reads format {FORMAT}",
            "use the release of dsage-spool that made this spool, or a newer one",
        )
    known = Settings.__dataclass_fields__
    try:
        settings = Settings(**{key: value for key, value in values.items() if key in known})
        _check(settings)
    except (TypeError, ValueError) as error:
        raise BadFormat(f"spool.json: {error}") from None
    return settings


def _check(settings: Settings) -> None:
    if not isinstance(settings.id, str) or len(settings.id) < 8:
        raise ValueError("id is missing or short")
    if not timing.SHORTEST_LEASE <= settings.lease <= 30 * 86_400:
        raise ValueError("lease is not between 1 second and 30 days")
    if not settings.times.holds():
        raise ValueError("the times do not hold")


def load(files: Files, place: str = "this folder") -> Settings:
    """The settings of the spool at hand; UsageError if it is none."""
    try:
        return parse(files.read(layout.SETTINGS, 64 << 10))
    except (Gone, NotRegular):
        raise UsageError(
            f"{place}: not a spool: it has no spool.json", f"make one with `dsage-spool init {place}`"
        ) from None

"""Filters of events and of streams, as plain values; PostgreSQL evaluates them."""

from dataclasses import dataclass

from esx.errors import InvalidQuery
from esx.glob import glob_containing, glob_prefix


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of events; an event has to match all parts that are given.

    `stream` and `event_type` are globs. `where` is a JSONPath over data, with ``$metadata`` for the metadata:
    an event passes if the first item of the result is neither false nor null.
    """

    stream: str | None = None
    event_type: str | None = None
    where: str | None = None

    def __bool__(self) -> bool:
        return any(part is not None for part in (self.stream, self.event_type, self.where))


@dataclass(frozen=True, slots=True)
class StreamFilter:
    """A filter of streams: their ids have the `prefix`, and match the glob `match` or contain the text `contains`.

    Raises InvalidQuery if both `match` and `contains` are given.
    """

    prefix: str = ""
    match: str | None = None
    contains: str | None = None

    def __post_init__(self) -> None:
        if self.match is not None and self.contains is not None:
            raise InvalidQuery("choose streams by a glob or by what their ids contain, not by both")

    @property
    def glob(self) -> str | None:
        """The glob that ids must match: `match`, or one for `contains`; None without both."""
        return self.match if self.contains is None else glob_containing(self.contains)

    @property
    def start(self) -> str:
        """The text with which all wanted ids start, for a range of the index."""
        start = glob_prefix(self.glob or "")
        return start if start.startswith(self.prefix) else self.prefix


EVERY_STREAM = StreamFilter()

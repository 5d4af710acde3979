"""Filters of events and of streams, as plain values; PostgreSQL evaluates them."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from esx.errors import InvalidQuery
from esx.glob import glob_containing, glob_literal, glob_prefix, glob_to_regex

CORRELATION_NAMES = ("correlation_id", "correlationId", "$correlationId", "correlation-id")
"""The names in common use for the id in metadata that all events caused by one request share."""
USER_NAMES = ("user", "user_id", "userId", "$userId", "username")
"""The names in common use for the user in metadata."""


class MetadataMatch(NamedTuple):
    """A condition on metadata: the text of one of the members `names` matches the glob `glob`.

    `key` says what it is: ``user`` or ``corr``. With `any_case` a glob without capitals matches in any case.
    """

    key: str
    names: tuple[str, ...]
    glob: str
    any_case: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of events; an event has to match all parts that are given.

    `stream` and `event_type` are globs. With `any_case` those of them that have no capital letter match in any case,
    except for a whole id of a stream. `where` is a JSONPath over data, with ``$metadata`` for the metadata: an event
    passes if the first item of the result is neither false nor null. `also` are further such paths, `members`
    conditions on the metadata. An event passes if it was created at or after `since` and before `until`. Each of
    `mentions` is a text that is in its stream's id, its data or its metadata as a word: not within a longer one.
    """

    stream: str | None = None
    event_type: str | None = None
    where: str | None = None
    also: tuple[str, ...] = ()
    members: tuple[MetadataMatch, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    any_case: bool = False
    mentions: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        parts = (self.stream, self.event_type, self.where, self.since, self.until)
        return any(part is not None for part in parts) or bool(self.also or self.members or self.mentions)

    @property
    def paths(self) -> tuple[str, ...]:
        """All JSONPaths."""
        return self.also if self.where is None else (self.where, *self.also)

    @property
    def stream_pattern(self) -> "Pattern | None":
        """How the id of a stream is compared."""
        if self.stream is None:
            return None
        return Pattern.of(self.stream, any_case=self.any_case and glob_literal(self.stream) is None)

    @property
    def type_pattern(self) -> "Pattern | None":
        """How the type is compared."""
        return None if self.event_type is None else Pattern.of(self.event_type, any_case=self.any_case)


class Pattern(NamedTuple):
    """A glob as PostgreSQL evaluates it: `literal` is the only text that matches, if there is one."""

    literal: str | None
    regex: str

    @property
    def text(self) -> str:
        """The text to compare with: the literal, or the regular expression."""
        return self.regex if self.literal is None else self.literal

    @classmethod
    def of(cls, glob: str, *, any_case: bool = False) -> "Pattern":
        """Return the pattern of a glob, in `any_case` if it has no capital letter. Raises InvalidQuery."""
        if any_case and glob == glob.lower() != glob.upper():
            return cls(None, "(?i)" + glob_to_regex(glob))
        return cls(glob_literal(glob), glob_to_regex(glob))


@dataclass(frozen=True, slots=True)
class StreamFilter:
    """A filter of streams: their ids have the `prefix`, and match the glob `match` or contain the text `contains`.

    `category` is theirs, where a column of another tool's store has it. Raises InvalidQuery if both `match` and
    `contains` are given.
    """

    prefix: str = ""
    match: str | None = None
    contains: str | None = None
    category: str | None = None

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

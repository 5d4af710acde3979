"""The base of views: the command, the query and the rows for what a screen shows."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.model import Event, StreamSummary
from esx.store.overview.summary import WindowSummary
from esx.store.search.plan import SearchPlan
from esx.store.search.slices import Slice
from esx.text import shell_word

_PIECE = 500
"""Rows in a piece of an export."""


class View(ABC):
    """What a screen shows, as a value."""

    __slots__ = ()
    queried = True
    """Whether a query for psql reads the same rows."""
    limited = True
    """Whether a limit makes sense for its rows; where not, `sql` and `command` leave it out."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A name for a file with the rows; it may contain any characters, see `file_name`."""

    @property
    def whole(self) -> View:
        """The same view from its start."""
        return self

    @abstractmethod
    def rows(self, store: Store) -> AsyncIterator[bytes]:
        """Yield all rows as NDJSON, in pieces of whole lines; a piece is empty if a search found nothing in it."""

    @abstractmethod
    def select(self, layout: Layout) -> str:
        """Return the query for the rows, without a limit and a semicolon. Raises InvalidQuery for a malformed glob."""

    @abstractmethod
    def arguments(self, options: Sequence[str]) -> list[str]:
        """Return the words of the command that prints the rows; `options` name the database and a limit."""

    def sql(self, layout: Layout, limit: int | None = None) -> str:
        """Return the query for at most `limit` rows, for psql: all values are literals. Raises InvalidQuery."""
        text = self.select(layout)
        return f"{text}\nLIMIT {limit};" if limit is not None and self.limited else f"{text};"

    def command(self, limit: int | None = None, database: Sequence[str] = ()) -> str:
        """Return the esx command that prints at most `limit` rows, as it is typed in a shell.

        `database` are the options that name the database, see `Database.options`.
        """
        most = [f"--limit={limit}"] if limit is not None and self.limited else []
        return " ".join(map(shell_word, ["esx", *self.arguments([*most, *database])]))

    def file_name(self) -> str:
        """Return a name for a file with the rows, of letters, digits, dots, dashes and underscores."""
        return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', self.name[:200]).strip('._-')[:60] or 'stream'}.ndjson"


class Store(Protocol):
    """What views need of an `EventStore` to read their rows."""

    def streams(
        self, *, prefix: str, match: str | None, contains: str | None, recent: bool
    ) -> AsyncIterator[StreamSummary]:
        """Yield streams."""

    def read(self, stream_id: str, *, backwards: bool) -> AsyncIterator[Event]:
        """Yield the events of a stream."""

    def read_all(self, *, backwards: bool) -> AsyncIterator[Event]:
        """Yield the events of all streams."""

    async def plan_search(
        self, where: Filter, *, stream: str | None, since: datetime | None, until: datetime | None
    ) -> SearchPlan:
        """Return how to search for events."""

    def search(self, plan: SearchPlan, *, backwards: bool) -> AsyncIterator[Slice[Event]]:
        """Yield what a search finds."""

    async def event(self, global_seq: int) -> Event | None:
        """Return one event."""

    async def happened(self, since: datetime, until: datetime | None, *, where: Filter | None) -> WindowSummary:
        """Return what happened in a time window."""

    async def export(self, *, after: int, where: Filter) -> AsyncIterable[bytes]:
        """Return the events of the feed, as NDJSON."""


async def ndjson(rows: AsyncIterator[Event] | AsyncIterator[StreamSummary]) -> AsyncIterator[bytes]:
    """Yield rows as NDJSON, some hundred at a time."""
    lines: list[str] = []
    async for row in rows:
        lines.append(row.to_json())
        if len(lines) == _PIECE:
            yield joined(lines)
            lines.clear()
    yield joined(lines)


def joined(lines: Sequence[str]) -> bytes:
    """Return the lines with their ends."""
    return "".join(f"{line}\n" for line in lines).encode()

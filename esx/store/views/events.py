"""The views of events: a list of them, one event, the feed, and a trail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from esx.filter_language import filter_text
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.literals import literal
from esx.store.filter_sql import literal_filter_sql, stored_filter
from esx.store.views.view import Store, View, joined, ndjson
from esx.text import iso_utc


@dataclass(frozen=True, slots=True)
class EventsView(View):
    """The events of a stream, or with `stream_id` None of all streams, from the number `start` on, included.

    `where` chooses among them (its `stream` only among those of all streams), `since` and `until` by their time.
    """

    stream_id: str | None = None
    start: int | None = None
    backwards: bool = False
    where: Filter = field(default_factory=Filter)
    since: datetime | None = None
    until: datetime | None = None

    @property
    def name(self) -> str:
        """The stream's id, or ``all``."""
        return "all" if self.stream_id is None else self.stream_id

    @property
    def _where(self) -> Filter:
        return self.where if self.stream_id is None else replace(self.where, stream=None)

    @property
    def whole(self) -> EventsView:
        """The view from its start."""
        return replace(self, start=None)

    async def rows(self, store: Store) -> AsyncIterator[bytes]:
        """Yield the events, from the start."""
        if self.where or self.since is not None or self.until is not None:
            plan = await store.plan_search(self.where, stream=self.stream_id, since=self.since, until=self.until)
            async for part in store.search(plan, backwards=self.backwards):
                yield joined([event.to_json() for event in part.events])
            return
        if self.stream_id is None:
            events = store.read_all(backwards=self.backwards)
        else:
            events = store.read(self.stream_id, backwards=self.backwards)
        async for piece in ndjson(events):
            yield piece

    def arguments(self, options: Sequence[str]) -> list[str]:
        """Return ``read`` with its options and the stream."""
        where = self._where
        chosen = _filter_options(where) if where.stream is None else [filter_text(where)]
        chosen += [f"--since={iso_utc(self.since)}"] if self.since is not None else []
        chosen += [f"--until={iso_utc(self.until)}"] if self.until is not None else []
        chosen += [f"--from={self.start}"] if self.start is not None else []
        chosen += ["--backwards"] if self.backwards else []
        stream = "$all" if self.stream_id is None else self.stream_id
        # After -- nothing is an option, even if a stream's id starts with a dash.
        words = [word for word in chosen if not word.startswith("-")]
        chosen = [word for word in chosen if word.startswith("-")]
        return ["read", *chosen, *options, *(["--"] if stream.startswith("-") else []), stream, *words]

    def select(self, layout: Layout) -> str:
        """Return the query for the events."""
        key = "e.global_seq" if self.stream_id is None else "e.stream_seq"
        conditions = [] if self.stream_id is None else [f"e.stream_id = {literal(self.stream_id)}"]
        if self.start is not None:
            conditions.append(f"{key} {'<=' if self.backwards else '>='} {self.start}")
        conditions += literal_filter_sql(stored_filter(layout, self._where))
        if self.since is not None:
            conditions.append(f"e.created_at >= {literal(self.since)}")
        if self.until is not None:
            conditions.append(f"e.created_at < {literal(self.until)}")
        return _select(layout, conditions, f"{key} DESC" if self.backwards else key)


@dataclass(frozen=True, slots=True)
class EventView(View):
    """One event in full."""

    limited = False
    global_seq: int

    @property
    def name(self) -> str:
        """What a file with the event may be called."""
        return f"event-{self.global_seq}"

    def rows(self, store: Store) -> AsyncIterator[bytes]:
        """Yield the event."""
        return ndjson(_numbered(store, (self.global_seq,)))

    def arguments(self, options: Sequence[str]) -> list[str]:
        """Return ``read`` for this one event."""
        return ["read", f"--from={self.global_seq}", "--limit=1", *options, "$all"]

    def select(self, layout: Layout) -> str:
        """Return the query for the event."""
        return _select(layout, [f"e.global_seq = {self.global_seq}"])


@dataclass(frozen=True, slots=True)
class FeedView(View):
    """The ordered feed after global_seq `after`."""

    limited = False
    after: int = 0
    where: Filter = field(default_factory=Filter)

    @property
    def name(self) -> str:
        """What a file with the rows may be called."""
        return "feed"

    async def rows(self, store: Store) -> AsyncIterator[bytes]:
        """Yield the events up to the safe position."""
        async for piece in await store.export(after=self.after, where=self.where):
            yield piece

    def arguments(self, options: Sequence[str]) -> list[str]:
        """Return ``tail`` with its options."""
        words = _filter_options(self.where)
        streams = self.where.stream is not None and all(word.startswith("--") for word in words)
        stream = [f"--stream={self.where.stream}"] if streams else []
        return ["tail", f"--from={self.after}", *stream, *words, *options]

    def select(self, layout: Layout) -> str:
        """Return the query for the events that are visible when it runs."""
        return _select(layout, [f"e.global_seq > {self.after}", *literal_filter_sql(stored_filter(layout, self.where))])


@dataclass(frozen=True, slots=True)
class TrailView(View):
    """The trail of an event: the `members` that were found, looking at up to `scan` events where no index helps."""

    limited = False
    global_seq: int
    members: tuple[int, ...]
    scan: int | None = None

    @property
    def name(self) -> str:
        """What a file with the rows may be called."""
        return f"trail-{self.global_seq}"

    def rows(self, store: Store) -> AsyncIterator[bytes]:
        """Yield the events that were found."""
        return ndjson(_numbered(store, self.members))

    def arguments(self, options: Sequence[str]) -> list[str]:
        """Return ``trail`` with its options."""
        scan = [] if self.scan is None else [f"--scan={self.scan}"]
        return ["trail", *scan, *options, str(self.global_seq)]

    def select(self, layout: Layout) -> str:
        """Return the query for the events that were found."""
        return _select(layout, [f"e.global_seq IN ({', '.join(map(str, self.members)) or 'NULL'})"])


def _select(layout: Layout, conditions: Sequence[str], order: str = "e.global_seq") -> str:
    where = "\n  AND ".join(conditions or ["true"])
    return f"SELECT {layout.columns()}\nFROM {layout.shown_as} e\nWHERE {where}\nORDER BY {order}"


def _filter_options(where: Filter) -> list[str]:
    """Return the options for type and path, or where there is more than these, the filter as one word."""
    if where != Filter(where.stream, where.event_type, where.where):
        return [filter_text(where)]
    chosen = [f"--type={where.event_type}"] if where.event_type is not None else []
    return chosen + ([f"--where={where.where}"] if where.where is not None else [])


async def _numbered(store: Store, numbers: Iterable[int]) -> AsyncIterator[Event]:
    for number in numbers:
        event = await store.event(number)
        if event is not None:
            yield event

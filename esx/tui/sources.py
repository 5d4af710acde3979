"""Where lists get their rows: pages by key, in either direction. Plain asyncio code, no screen."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from esx.store.reading import StreamKey
from esx.store.scale import AFTER_PREFIX
from esx.tui.rows import ALL_STREAMS, EventRow, StreamRow
from esx.tui.scales import Names, Numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esx.store.store import EventStore
    from esx.tui.scales import Scale

Row = TypeVar("Row")
Key = TypeVar("Key")

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row, Key]):
    """Rows in the order of the screen, top to bottom, and the key to go on from in the direction asked for.

    `onward` is None at the edge. A page may hold no rows and yet not be at the edge: what is looked at is bounded,
    not what is found.
    """

    rows: Sequence[Row]
    onward: Key | None
    looked: int = 0
    """How many streams or events were looked at, where that is more than was found."""


class RowSource(Protocol[Row, Key]):
    """A list that can be read from any key on, in either direction, a bounded page at a time."""

    ends_anywhere: bool
    """Whether the far end can be read at once; if not, it is reached by reading on."""

    async def page(self, after: Key | None, *, backwards: bool, limit: int) -> Page[Row, Key]:
        """Return the rows that follow `after` (backwards: that come before it); None: from that end on."""
        ...

    async def measure(self) -> Scale[Key] | None:
        """Return where the rows lie in the whole list; None if that cannot be told at once."""
        ...

    def key(self, row: Row) -> Key:
        """Return the row's own key."""
        ...


class StreamEvents:
    """The events of one stream, oldest first or newest first."""

    ends_anywhere = True

    def __init__(self, store: EventStore, stream_id: str, *, newest_first: bool = False) -> None:
        self._store = store
        self.stream_id = stream_id
        self.newest_first = newest_first

    async def page(self, after: int | None, *, backwards: bool, limit: int) -> Page[EventRow, int]:
        """Return events by stream_seq."""
        down = backwards != self.newest_first
        start = after if after is None else after + (-1 if down else 1)
        if start is not None and start < 0:
            return Page([], None)
        events = await self._store.preview_page(self.stream_id, start=start, limit=limit, backwards=down)
        onward = events[-1].stream_seq if len(events) == limit else None
        rows = list(map(EventRow.of_preview, events))
        return Page(rows[::-1] if backwards else rows, onward)

    async def measure(self) -> Numbers | None:
        """Return the scale of stream_seq, which is dense."""
        stream = await self._store.summary(self.stream_id)
        if stream is None:
            return None
        low = stream.version - stream.events + 1
        return Numbers(low, stream.version, downwards=self.newest_first, dense=True)

    def key(self, row: EventRow) -> int:
        """Return the stream_seq."""
        return row.stream_seq


class AllEvents:
    """The events of all streams in the global order, oldest first or newest first."""

    ends_anywhere = True

    def __init__(self, store: EventStore, *, newest_first: bool = True) -> None:
        self._store = store
        self.newest_first = newest_first

    async def page(self, after: int | None, *, backwards: bool, limit: int) -> Page[EventRow, int]:
        """Return events by global_seq."""
        down = backwards != self.newest_first
        events = await self._store.preview_all_page(position=after, limit=limit, backwards=down)
        onward = events[-1].global_seq if len(events) == limit else None
        rows = list(map(EventRow.of_preview, events))
        return Page(rows[::-1] if backwards else rows, onward)

    async def measure(self) -> Numbers | None:
        """Return the scale of global_seq, in which some numbers may be missing."""
        ends = [await self._store.preview_all_page(limit=1, backwards=backwards) for backwards in (False, True)]
        if not all(ends):
            return None
        (low,), (high,) = ends
        return Numbers(low.global_seq, high.global_seq, downwards=self.newest_first, dense=False)

    def key(self, row: EventRow) -> int:
        """Return the global_seq."""
        return row.global_seq


class StreamChoice(NamedTuple):
    """Which streams: those with a prefix, that match a glob, or that contain a text."""

    prefix: str = ""
    match: str | None = None
    contains: str | None = None

    @classmethod
    def of(cls, text: str) -> StreamChoice:
        """Return what a text typed as a filter means: ``~text`` contains, ``*?[`` make a glob, else it is a prefix."""
        if text.startswith("~"):
            return cls(contains=text[1:]) if len(text) > 1 else cls()
        return cls(prefix=text) if _GLOB.isdisjoint(text) else cls(match=text)


EVERY_STREAM = StreamChoice()


class _Streams:
    """What both orders of streams share: the filter, and the row that stands for all streams at the top."""

    def __init__(self, store: EventStore, choice: StreamChoice = EVERY_STREAM) -> None:
        self._store = store
        self.choice = choice
        self._with_all = choice == EVERY_STREAM

    def key(self, row: StreamRow) -> StreamKey:
        """Return the position of the stream; the row of all streams comes before every other."""
        if row.summary is None:
            return _TOP
        return StreamKey(row.summary.stream_id, row.summary.last_global_seq)

    def _topped(self, rows: list[StreamRow], *, at_top: bool) -> list[StreamRow]:
        return [ALL_STREAMS, *rows] if at_top and self._with_all else rows


_TOP = StreamKey("", 2**63 - 1)


class StreamsByName(_Streams):
    """Streams in the order of their ids."""

    ends_anywhere = True

    async def page(self, after: StreamKey | None, *, backwards: bool, limit: int) -> Page[StreamRow, StreamKey]:
        """Return streams by id."""
        if after == _TOP:
            if backwards:
                return Page([], None)
            after = None
            at_top = False
        else:
            at_top = after is None and not backwards
        page = await self._store.streams_page(after=after, **self.choice._asdict(), limit=limit, backwards=backwards)
        rows = list(map(StreamRow.of, page.streams))
        if backwards:
            return Page(self._topped(rows[::-1], at_top=page.next_after is None), page.next_after, page.looked)
        return Page(self._topped(rows, at_top=at_top), page.next_after, page.looked)

    async def measure(self) -> Names | None:
        """Return the scale of names, estimated; of those that match a glob nobody knows."""
        prefix, match, contains = self.choice
        names = await self._store.name_scale() if match is None and contains is None else None
        if names is None:
            return None
        streams = await self._store.count_streams(prefix=prefix)
        return Names(names, prefix, prefix + AFTER_PREFIX, streams=streams, above=1 if self._with_all else 0)


class StreamsByActivity(_Streams):
    """Streams by their last event, newest first.

    The store lists them in this direction only; to go back up, the source remembers where its pages began and reads
    the right one again.
    """

    ends_anywhere = False

    def __init__(self, store: EventStore, choice: StreamChoice = EVERY_STREAM) -> None:
        super().__init__(store, choice)
        # Where pages began, by falling global_seq, negated for bisect.
        self._began: list[int] = []

    async def page(self, after: StreamKey | None, *, backwards: bool, limit: int) -> Page[StreamRow, StreamKey]:
        """Return streams by the global_seq of their last event."""
        if backwards:
            return await self._before(after, limit)
        at_top = after is None
        rows, onward, looked = await self._read(None if after in (None, _TOP) else after, limit)
        return Page(self._topped(rows, at_top=at_top), onward, looked)

    async def measure(self) -> None:
        """Return nothing: how many streams follow only reading on can tell."""
        return

    async def _read(self, after: StreamKey | None, limit: int) -> tuple[list[StreamRow], StreamKey | None, int]:
        page = await self._store.streams_page(after=after, **self.choice._asdict(), recent=True, limit=limit)
        if after is not None:
            place = bisect_left(self._began, -after.global_seq)
            if self._began[place : place + 1] != [-after.global_seq]:
                self._began.insert(place, -after.global_seq)
        return list(map(StreamRow.of, page.streams)), page.next_after, page.looked

    async def _before(self, key: StreamKey | None, limit: int) -> Page[StreamRow, StreamKey]:
        """Return the streams above `key`: those of the page that began above it, down to it."""
        if key == _TOP:
            return Page([], None)
        bound = -1 if key is None else key.global_seq
        place = bisect_left(self._began, -bound)
        start = StreamKey("", -self._began[place - 1]) if place else None
        found: list[StreamRow] = []
        after = start
        while True:
            rows, onward, _ = await self._read(after, limit)
            above = [row for row in rows if self.key(row).global_seq > bound]
            found += above
            if onward is None or len(above) < len(rows) or onward.global_seq <= bound:
                break
            after = onward
        return Page(self._topped(found, at_top=start is None), start)

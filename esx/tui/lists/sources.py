"""The sources of lists: pages of rows by key, in either direction. Plain asyncio code, no screen."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, Protocol

from esx.eventstore import EventStore
from esx.filters import EVERY_STREAM, StreamFilter
from esx.store.read.pages import StreamKey
from esx.store.read.scale import AFTER_PREFIX
from esx.tui.lists.column import Row
from esx.tui.lists.row_numbers import Key, NamedRows, NumberedRows, RowNumbers
from esx.tui.lists.rows import ALL_STREAMS, EventRow, StreamRow

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row, Key]):
    """Rows from top to bottom, and the key to go on from in the direction of reading.

    `onward` is None at the end of the list. A page may be empty although more follow: a bounded number is looked at,
    and none of them may pass the filter.
    """

    rows: Sequence[Row]
    onward: Key | None
    looked: int = 0
    """How many streams or events were looked at, for a filter."""


class RowSource(Protocol[Row, Key]):
    """A list that can be read from any key on, in either direction, a bounded page at a time."""

    ends_anywhere: bool
    """Whether the far end can be read at once; if not, it is reached by reading on."""

    async def page(self, after: Key | None, *, backwards: bool, limit: int) -> Page[Row, Key]:
        """Return the rows after the key `after` (backwards: before it); None: from that end on."""
        ...

    async def measure(self) -> RowNumbers[Key] | None:
        """Return the row numbers of the whole list; None if they are not known at once."""
        ...

    def key(self, row: Row) -> Key:
        """Return the key of a row."""
        ...

    def name_of(self, row: Row) -> object:
        """Return what a row is about, which stays the same when its key changes."""
        ...


class EventRows:
    """The events of a stream by stream_seq, or, with None, of all by global_seq; oldest first or newest first."""

    ends_anywhere = True

    def __init__(self, store: EventStore, stream_id: str | None, *, newest_first: bool) -> None:
        self._store = store
        self.stream_id = stream_id
        self.newest_first = newest_first

    async def page(self, after: int | None, *, backwards: bool, limit: int) -> Page[EventRow, int]:
        """Return events by their numbers."""
        down = backwards != self.newest_first
        if self.stream_id is None:
            events = await self._store.preview_all_page(position=after, limit=limit, backwards=down)
        else:
            start = after if after is None else after + (-1 if down else 1)
            if start is not None and start < 0:
                return Page([], None)
            events = await self._store.preview_page(self.stream_id, start=start, limit=limit, backwards=down)
        rows = list(map(EventRow.of_preview, events))
        onward = self.key(rows[-1]) if len(rows) == limit else None
        return Page(rows[::-1] if backwards else rows, onward)

    async def measure(self) -> NumberedRows | None:
        """Return the numbers from the first event to the last: dense in a stream, with gaps among all."""
        if self.stream_id is not None:
            stream = await self._store.summary(self.stream_id)
            if stream is None:
                return None
            return NumberedRows(stream.version - stream.events + 1, stream.version, downwards=self.newest_first)
        ends = [await self._store.preview_all_page(limit=1, backwards=backwards) for backwards in (False, True)]
        if not all(ends):
            return None
        (low,), (high,) = ends
        return NumberedRows(low.global_seq, high.global_seq, downwards=self.newest_first)

    def key(self, row: EventRow) -> int:
        """Return the stream_seq or, of all streams, the global_seq."""
        return row.global_seq if self.stream_id is None else row.stream_seq

    name_of = key


def stream_filter(text: str) -> StreamFilter:
    """Return what a text typed as a filter means: ``~text`` contains, ``*?[`` make a glob, else it is a prefix."""
    if text.startswith("~"):
        return StreamFilter(contains=text[1:]) if len(text) > 1 else EVERY_STREAM
    return StreamFilter(prefix=text) if _GLOB.isdisjoint(text) else StreamFilter(match=text)


class _Streams:
    """Common to both orders of streams: the filter, and the row of all streams at the top."""

    def __init__(self, store: EventStore, where: StreamFilter = EVERY_STREAM) -> None:
        self._store = store
        self.where = where
        self._with_all = where == EVERY_STREAM and store.unnumbered is None

    def key(self, row: StreamRow) -> StreamKey:
        """Return the key of a stream; the row of all streams comes first."""
        if row.summary is None:
            return _TOP
        return StreamKey(row.summary.stream_id, row.summary.last_global_seq)

    def name_of(self, row: StreamRow) -> str | None:
        """Return the id of the stream, None for the row of all streams."""
        return None if row.summary is None else row.summary.stream_id

    def _topped(self, rows: list[StreamRow], *, at_top: bool) -> list[StreamRow]:
        return [ALL_STREAMS, *rows] if at_top and self._with_all else rows


_TOP = StreamKey("", 2**63 - 1)
_PAGE_START = "\0"
"""Stands for the id in the key of a place where a page began. The stream with that number, if any, is above it.

No id holds a NUL.
"""


class StreamsByName(_Streams):
    """Streams in the order of their ids."""

    ends_anywhere = True

    async def page(self, after: StreamKey | None, *, backwards: bool, limit: int) -> Page[StreamRow, StreamKey]:
        """Return streams by id."""
        if after == _TOP and backwards:
            return Page([], None)
        start = None if after == _TOP else after
        page = await self._store.streams_page(after=start, **asdict(self.where), limit=limit, backwards=backwards)
        rows = list(map(StreamRow.of, page.streams[::-1] if backwards else page.streams))
        at_top = (page.next_after if backwards else after) is None
        return Page(self._topped(rows, at_top=at_top), page.next_after, page.looked)

    async def measure(self) -> NamedRows | None:
        """Return estimated row numbers; None for a glob, whose matches cannot be estimated."""
        prefix = self.where.prefix
        names = await self._store.name_scale() if self.where.glob is None else None
        if names is None:
            return None
        streams = await self._store.count_streams(prefix=prefix)
        return NamedRows(names, prefix, prefix + AFTER_PREFIX, streams=streams, above=1 if self._with_all else 0)


class StreamsByActivity(_Streams):
    """Streams by their last event, newest first.

    The store lists them in this direction only. To go back up, the source remembers where its pages began, and reads
    the right one again.
    """

    ends_anywhere = False

    def __init__(
        self, store: EventStore, where: StreamFilter = EVERY_STREAM, *, position: Callable[[], int] = lambda: 0
    ) -> None:
        super().__init__(store, where)
        self.as_of = 0
        """Up to which global_seq the list knows of events: what `position` was when its top was read, at least."""
        self._position = position
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
        """Return nothing: only reading on can tell how many streams follow."""

    async def _read(self, after: StreamKey | None, limit: int) -> tuple[list[StreamRow], StreamKey | None, int]:
        position = self._position()
        page = await self._store.streams_page(after=after, **asdict(self.where), recent=True, limit=limit)
        if after is None:
            self.as_of = max(position, page.streams[0].last_global_seq if page.streams else 0)
        if after is not None:
            place = bisect_left(self._began, -after.global_seq)
            if self._began[place : place + 1] != [-after.global_seq]:
                self._began.insert(place, -after.global_seq)
        return list(map(StreamRow.of, page.streams)), page.next_after, page.looked

    async def _before(self, key: StreamKey | None, limit: int) -> Page[StreamRow, StreamKey]:
        """Return the streams above `key`, from where the page above it began."""
        if key == _TOP:
            return Page([], None)
        bound = -1 if key is None else key.global_seq
        lowest = bound if key is not None and key.stream_id == _PAGE_START else bound + 1
        place = bisect_left(self._began, -bound)
        start = StreamKey(_PAGE_START, -self._began[place - 1]) if place else None
        found: list[StreamRow] = []
        after = start
        while True:
            rows, onward, _ = await self._read(after, limit)
            above = [row for row in rows if self.key(row).global_seq >= lowest]
            found += above
            if onward is None or len(above) < len(rows) or onward.global_seq <= bound:
                break
            after = onward
        return Page(self._topped(found, at_top=start is None), start)

"""The store as its users see it: connect, append, read, follow."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from esx.store import bulk, health, locating, locked, pressure, projection_table, schema, search, writing
from esx.store.append import Appender
from esx.store.barrier import Filter
from esx.store.bulk_export import Export, settle
from esx.store.bulk_import import Imported, Importer
from esx.store.categories import CategoryReader
from esx.store.connection import Connector, open_pool
from esx.store.doorbell import Doorbell
from esx.store.erase import Eraser
from esx.store.errors import InvalidQuery, NotFound, SchemaMissing, StoreFailed, StoreUnavailable
from esx.store.feed import Feed, find_end
from esx.store.glob import glob_containing, glob_prefix
from esx.store.model import ANY, Event, EventPreview, Notification, Strategy
from esx.store.projection import Projection
from esx.store.reading import Reader, StoredId, StreamKey, StreamPage, check_limit
from esx.store.scale import name_scale
from esx.store.scope import Scope
from esx.store.silence import Watch
from esx.store.tail import Tails
from esx.store.trail import COMMON_FIELDS
from esx.store.trail_reading import TrailReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from types import TracebackType

    import asyncpg

    from esx.positions import Position
    from esx.store.categories import CategoryPage, CategorySummary
    from esx.store.connection import Session
    from esx.store.doctor import Finding
    from esx.store.erase import Mark, Marked
    from esx.store.health import Health
    from esx.store.layout import Layout
    from esx.store.locked import LockedStream
    from esx.store.model import (
        AppendResult,
        ExpectedVersion,
        NewEvent,
        StreamAppend,
        StreamSummary,
    )
    from esx.store.pool import Loan, Pool
    from esx.store.pressure import Place, Pressure
    from esx.store.projection import BatchHandler, EventHandler
    from esx.store.projection_table import ProjectionStatus
    from esx.store.scale import NameScale
    from esx.store.trail import FieldNames, Trail
    from esx.store.views import View

_PAGE = 1000
_FOUND_AT_FIRST = 50
_LARGE_SLICE = 8_000_000
"""Characters of payload in a slice of a search beyond which the next one is to hold fewer events."""
_STREAM_PAGE = 200
_BATCH = 500
_RECENT_SCAN = 1000
_SEARCH_SCAN = 5000
"""How many ids (by recent activity: events) a page looks at for those that match."""
_CATEGORY_PAGE = 100
_TRAIL = 10_000
_TRAIL_SCAN = 1_000_000
_IDS_PAGE = 5000


class EventStore:
    """An event store in PostgreSQL. Make one with `EventStore.connect`, as an async context manager.

    All methods raise StoreUnavailable when the database cannot be reached or goes away, and SchemaMissing when
    it has no events table.
    """

    def __init__(self, pool: Pool, connector: Connector, *, retry_for: float, read_only: bool) -> None:
        self._pool = pool
        self._connector = connector
        self._patience = retry_for
        self._read_only = read_only
        self._parts: tuple[Layout, Appender, Reader] | None = None
        self._closed = False
        self._doorbell = Doorbell(connector, "new_events")
        self._tails = Tails()
        self._watch = Watch(connector, pool.lent, connector.timeout)
        self._watch.start()

    @classmethod
    def connect(
        cls,
        dsn: str | None = None,
        *,
        max_connections: int = 10,
        application_name: str = "esx",
        read_only: bool = False,
        statement_timeout: float | None = None,
        timeout: float = 10.0,
        retry_for: float = 10.0,
        notification: Notification = Notification.DOORBELL,
    ) -> Connecting:
        """Connect to the database at `dsn` (None: where libpq's ``PG*`` variables point).

        Use it as ``async with EventStore.connect(dsn) as store`` or ``store = await EventStore.connect(dsn)``
        with ``await store.close()`` later. At most `max_connections` connections are opened, as needed, and one
        more to listen on once something subscribes. Raises StoreUnavailable within `timeout` seconds.

        A `read_only` session may not write. A statement that takes longer than `statement_timeout` seconds (0: no
        limit, None: the server's own) ends with QueryTimeout; exports have no such limit.

        A connection that is silent for `timeout` seconds while PostgreSQL has nothing to do for it counts as lost. An
        append whose connection is lost is tried again for up to `retry_for` seconds where that is safe.
        `notification` says how this store's appends wake subscribers.

        Behind a connection pooler in transaction mode, which is noticed, feeds poll; StoreFailed is raised there for a
        `notification` of its own, and for appends where transactions are not read committed by default.
        """

        async def connect() -> EventStore:
            connector = Connector(dsn, application_name, timeout=timeout)
            pool = await open_pool(
                connector,
                size=max_connections,
                read_only=read_only,
                statement_timeout=statement_timeout,
                notification=notification,
            )
            return cls(pool, connector, retry_for=retry_for, read_only=read_only)

        return Connecting(connect())

    async def close(self) -> None:
        """Close all connections. Feeds that are still open end with StoreClosed."""
        self._closed = True
        self._watch.stop()
        await self._doorbell.close()
        await self._pool.settled()
        self._pool.terminate()

    async def __aenter__(self) -> EventStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def address(self) -> str:
        """Where the store is, for people: ``user@host:port/database``, never a password."""
        return self._connector.where

    @property
    def listening(self) -> bool:
        """Whether notifications are being received. False until something subscribes."""
        return self._doorbell.listening

    @property
    def pooler(self) -> str | None:
        """What is known of a connection pooler that stands before PostgreSQL, in one line; None if there is none."""
        pooler = self._connector.pooler
        return None if pooler is None else str(pooler)

    def _connection(self) -> Loan:
        return self._pool.lend()

    def _writing(self) -> Loan:
        # A pooler's session cannot be made read-only, as others use it too.
        if self._read_only:
            raise StoreFailed(f"{self.address} was opened read-only: nothing can be changed there")
        return self._pool.lend()

    @contextlib.asynccontextmanager
    async def _at_leisure(self) -> AsyncIterator[Session]:
        """Lend a connection to one who may write and takes the time it likes between statements."""
        async with self._writing() as connection:
            with self._watch.sparing(connection):
                yield connection

    async def _tools(self, connection: Session) -> tuple[Layout, Appender, Reader]:
        if self._parts is None:
            layout = await schema.detect_layout(connection)
            self._parts = (layout, Appender(layout), Reader(layout))
        return self._parts

    async def _load(self) -> tuple[Layout, Appender, Reader]:
        if self._parts is not None:
            return self._parts
        async with self._connection() as connection:
            return await self._tools(connection)

    # -- schema -------------------------------------------------------------------------------------------

    async def init(self) -> list[str]:
        """Apply schema.sql and return what it changed; an empty list if everything was there."""
        async with self._writing() as connection:
            changes = await schema.apply_schema(connection)
        self._parts = None
        return changes

    async def has_schema(self) -> bool:
        """Return whether there is a usable events table."""
        async with self._connection() as connection:
            try:
                await self._tools(connection)
            except SchemaMissing:
                return False
        return True

    # -- appending ----------------------------------------------------------------------------------------

    async def append(
        self,
        stream_id: str,
        events: Sequence[NewEvent],
        *,
        expected: ExpectedVersion = ANY,
        strategy: Strategy = Strategy.CONDITIONAL,
    ) -> AppendResult:
        """Append `events` to a stream, all or none, if the stream is at the `expected` version.

        Repeating an append with the same event ids is safe for NO_STREAM and exact versions: it returns the first
        one's result, and that is what happens by itself when the connection is lost. For ANY and STREAM_EXISTS that
        holds where a unique index keeps event ids unique; without one the loss of the connection raises
        OutcomeUnknown, and repeating may store the events twice. Raises WrongVersion, InvalidEvent for an event that
        cannot be stored, and EventIdsReused.
        """
        patience: writing.Patience | None = None
        began = False
        while True:
            try:
                _, appender, _ = self._parts or await self._load()
                async with self._writing() as connection:
                    began = True
                    return await appender.append(connection, stream_id, events, expected, strategy)
            except StoreUnavailable as error:
                patience = patience or writing.Patience(self._patience)
                may_repeat = self._parts is not None and writing.repeatable(self._parts[0], expected)
                await patience.wait(error, began=began, may_repeat=may_repeat)

    async def append_to_streams(self, appends: Sequence[StreamAppend]) -> list[AppendResult]:
        """Append to several streams in one transaction, all or nothing, in the order given.

        They get their global sequence numbers in that order. Safe to repeat, and repeated after a lost connection,
        as with `append`. Raises WrongVersion for the first stream that is not at its expected version, and
        InvalidEvent, whose reason names the stream.
        """
        patience: writing.Patience | None = None
        began = False
        while True:
            try:
                _, appender, _ = self._parts or await self._load()
                async with self._writing() as connection:
                    began = True
                    return await writing.append_to_streams(connection, appender, appends)
            except StoreUnavailable as error:
                patience = patience or writing.Patience(self._patience)
                may_repeat = self._parts is not None and writing.repeatable_together(self._parts[0], appends)
                await patience.wait(error, began=began, may_repeat=may_repeat)

    async def decide(
        self,
        stream_id: str,
        decision: Callable[[list[Event]], Sequence[NewEvent] | Awaitable[Sequence[NewEvent]]],
        *,
        attempts: int = 10,
        strategy: Strategy = Strategy.CONDITIONAL,
    ) -> AppendResult | None:
        """Read a stream, let `decision` say from its events what to append, and append that at the version read.

        After a conflict it reads what is new, waits a little (jittered, growing), and asks again, up to `attempts`
        times; then WrongVersion is raised. `decision` may be a coroutine function; with nothing to append the
        result is None.
        """

        async def append(events: Sequence[NewEvent], expected: ExpectedVersion) -> AppendResult:
            return await self.append(stream_id, events, expected=expected, strategy=strategy)

        return await writing.decide(
            lambda start: self.read(stream_id, start=start), append, decision, attempts=attempts
        )

    def lock_stream(self, stream_id: str) -> AbstractAsyncContextManager[LockedStream]:
        """Lock a stream for an ``async with``: read and decide there, append with the lock's own `append`.

        Writers that lock queue, so none of them meets a conflict; its `version` is the stream's. All is one
        transaction, which holds a connection. Raises WrongVersion if somebody who takes no lock was faster, and
        OutcomeUnknown if the connection is lost after an append. What else is raised inside undoes the appends.

            async with store.lock_stream("account-42") as stream:
                await stream.append([NewEvent("Deposited", {"at": stream.version})])
        """
        return locked.lock_stream(self._at_leisure, self._load, stream_id)

    async def import_events(self, rows: Iterable[bulk.ImportedEvent]) -> int:
        """Store events with their own stream_seq and created_at, all or none, and return how many.

        They get new global sequence numbers in the order given. For filling a store; raises StreamTaken if
        a (stream_id, stream_seq) is taken.
        """
        async with self._writing() as connection:
            layout, _, _ = await self._tools(connection)
            return await bulk.copy_in(connection, layout, rows)

    async def import_ndjson(
        self,
        pieces: Iterable[bytes] | AsyncIterable[bytes],
        *,
        keep_global_seq: bool = False,
        renumber: bool = False,
        on_progress: Callable[[Imported], None] | None = None,
    ) -> Imported:
        """Store events given as NDJSON, in chunks of one transaction each, and return how many.

        `pieces` make up the lines and may be cut anywhere: an open binary file, or an `export`. A line holds
        stream_id, event_type and data, and if wanted metadata, stream_seq (else counted per stream from 0, for all
        lines or for none), created_at (else now) and event_id (else made from the rest, the same every time).
        The order of the lines becomes the global order, with new numbers; `keep_global_seq` keeps those given, which
        must ascend and be above all that the store has. `renumber` counts stream_seq anew.

        Lines whose event is stored already are skipped, so an import that was cut short is simply run again.
        Raises ImportFailed for a line that cannot be stored, whose place in its stream is taken by another event,
        or that would leave a hole in its stream.
        """
        async with self._writing() as connection:
            layout, _, _ = await self._tools(connection)
        importer = Importer(
            self._connection, layout, keep_global_seq=keep_global_seq, renumber=renumber, on_progress=on_progress
        )
        return await importer.run(pieces)

    async def export(self, *, after: int = 0, where: Filter | None = None, patience: float = 0.5) -> Export:
        """Return the events after global_seq `after` as NDJSON in global order, up to the safe position.

        Nothing can appear any more at or below that position: writers that are open now are waited for, up to
        `patience` seconds, and after that the export ends before the first gap that they may fill. Iterate over
        the result for pieces of bytes; memory stays the same at any size.
        """
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            until, gap = await settle(connection, layout, after, patience)
        return Export(self._connection, layout, after=after, until=until, gap=gap, where=where)

    # -- reading ------------------------------------------------------------------------------------------

    async def version(self, stream_id: str) -> int:
        """Return the version of a stream: its highest stream_seq, -1 if it has no events."""
        _, _, reader = self._parts or await self._load()
        async with self._connection() as connection:
            return await reader.version(connection, stream_id)

    async def event(self, global_seq: int) -> Event | None:
        """Return the event with that global_seq, or None."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.event(connection, global_seq)

    async def events(self, numbers: Sequence[int]) -> dict[int, Event]:
        """Return the events with these global_seq, as far as there are any."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.events(connection, numbers)

    async def previous_event(
        self, stream_id: str, before: int, *, event_type: str | None = None, scan: int = 5000
    ) -> Event | None:
        """Return the event of a stream before stream_seq `before`, with `event_type` the last one of that type.

        None if there is none, or none of that type among the `scan` events looked at: the look back is bounded.
        """
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            if event_type is not None:
                return await reader.previous(connection, stream_id, before, event_type, scan)
            page = await reader.stream_page(connection, stream_id, before - 1, 1, backwards=True)
            return page[0] if page else None

    async def summary(self, stream_id: str) -> StreamSummary | None:
        """Return one stream at a glance, or None if it has no events."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.summary(connection, stream_id)

    async def read_page(
        self, stream_id: str, *, start: int | None = None, limit: int = _PAGE, backwards: bool = False
    ) -> list[Event]:
        """Return up to `limit` events of a stream, from stream_seq `start` on, included.

        `start` None means from the first event, or backwards from the last.
        """
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.stream_page(connection, stream_id, start, limit, backwards=backwards)

    async def read_all_page(
        self, *, position: int | None = None, limit: int = _PAGE, backwards: bool = False
    ) -> list[Event]:
        """Return up to `limit` events of all streams after global_seq `position`, or before it if backwards.

        This is what is visible now, which is right for looking at the store. To process every event exactly in
        order use `subscribe` or `feed`: an event with a lower number may become visible later.
        """
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.all_page(connection, position, limit, backwards=backwards)

    async def preview_page(
        self, stream_id: str, *, start: int | None = None, limit: int = _STREAM_PAGE, backwards: bool = False
    ) -> list[EventPreview]:
        """Return the page that `read_page` returns, without whole payloads: for lists."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.stream_previews(connection, stream_id, start, limit, backwards=backwards)

    async def preview_all_page(
        self, *, position: int | None = None, limit: int = _STREAM_PAGE, backwards: bool = False
    ) -> list[EventPreview]:
        """Return the page that `read_all_page` returns, without whole payloads: for lists."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.all_previews(connection, position, limit, backwards=backwards)

    async def read(
        self, stream_id: str, *, start: int | None = None, limit: int | None = None, backwards: bool = False
    ) -> AsyncIterator[Event]:
        """Yield the events of a stream from stream_seq `start` on, at most `limit`.

        They are fetched some at a time: as many as a thousand, of large ones only a few.
        """
        check_limit(limit)
        while limit is None or limit > 0:
            size = _PAGE if limit is None else min(_PAGE, limit)
            async with self._connection() as connection:
                _, _, reader = await self._tools(connection)
                part, cut = await reader.stream_part(connection, stream_id, start, size, backwards=backwards)
            for event in part:
                yield event
            if len(part) < size and not cut:
                return
            start = part[-1].stream_seq + (-1 if backwards else 1)
            limit = None if limit is None else limit - len(part)

    async def read_all(
        self, *, after: int = 0, before: int | None = None, limit: int | None = None, backwards: bool = False
    ) -> AsyncIterator[Event]:
        """Yield the events of all streams with a global_seq above `after` and, if given, below `before`.

        What it says of order holds for what is visible when it reads; see `read_all_page`.
        """
        check_limit(limit)
        position: int | None = before if backwards else after
        while limit is None or limit > 0:
            size = _PAGE if limit is None else min(_PAGE, limit)
            async with self._connection() as connection:
                _, _, reader = await self._tools(connection)
                part, cut = await reader.all_part(connection, position, size, backwards=backwards)
            for event in part:
                if event.global_seq <= after or (before is not None and event.global_seq >= before):
                    return
                yield event
            if len(part) < size and not cut:
                return
            position = part[-1].global_seq
            limit = None if limit is None else limit - len(part)

    async def plan_search(
        self,
        where: Filter,
        *,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        wanted: int | None = None,
    ) -> search.SearchPlan:
        """Return how to search a stream (None: all streams) for events that pass `where`, and what that costs.

        Only events created from `since` on and before `until` are looked at. `wanted` says how many are wanted, None
        all. Nothing is searched yet: pass the plan to `search` or `search_slice`. Raises InvalidQuery.
        """
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await search.plan_search(
                connection, layout, Scope(stream), where, since=since, until=until, wanted=wanted
            )

    async def search_slice(
        self,
        plan: search.SearchPlan,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = _STREAM_PAGE,
        scan: int = 10_000,
        backwards: bool = False,
    ) -> search.Slice[Event]:
        """Return up to `limit` matches among the next `scan` events after, or backwards before, a number of the list.

        Its numbers are stream_seq in a stream and global_seq in all streams. Cancelling it ends the query as well.
        """
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await search.read_slice(
                connection, layout, plan, Event, after=after, before=before, limit=limit, scan=scan, backwards=backwards
            )

    async def search_previews(
        self,
        plan: search.SearchPlan,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = _STREAM_PAGE,
        scan: int = 10_000,
        backwards: bool = False,
    ) -> search.Slice[EventPreview]:
        """Return the slice that `search_slice` returns, without whole payloads: for lists."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await search.read_slice(
                connection,
                layout,
                plan,
                EventPreview,
                after=after,
                before=before,
                limit=limit,
                scan=scan,
                backwards=backwards,
            )

    async def search(
        self,
        plan: search.SearchPlan,
        *,
        start: int | None = None,
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncIterator[search.Slice[Event]]:
        """Yield slices of the search from the number `start` on, included, with at most `limit` events in all.

        Each looks at as many events as take a fraction of a second, so that one can follow it and stop it.
        """
        check_limit(limit)
        pace = search.Pace()
        position = None if start is None else start + (1 if backwards else -1)
        # What is found is fetched whole, so after large events fewer are.
        most = _FOUND_AT_FIRST
        while limit is None or limit > 0:
            with pace:
                part = await self.search_slice(
                    plan,
                    **{"before" if backwards else "after": position},
                    limit=most if limit is None else min(most, limit),
                    scan=pace.scan,
                    backwards=backwards,
                )
            yield part
            if part.position is None:
                return
            size = sum(len(event.data_json) for event in part.events)
            most = max(most // 4, 1) if size > _LARGE_SLICE else min(most * 2, _PAGE)
            position = part.position
            limit = None if limit is None else limit - len(part.events)

    async def common_types(self) -> list[str]:
        """Return the most common event types, by PostgreSQL's statistics: quick at any size, but not all of them."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await search.common_types(connection, layout)

    async def locate(self, position: Position, *, stream: str | None = None) -> int | None:
        """Return the number, in the list of a stream (None: of all streams), of the event at a position.

        Where there is no event, it is that of the next one; None: the list ends before. For a point in time it is the
        first event created at or after it. See `esx.store.locating` for how exact that is.
        """
        scope = Scope(stream)
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            if position.moment is not None:
                return (await locating.place_of_moment(connection, layout, scope, position.moment)).first
            if position.global_seq is not None:
                return await locating.place_of_global_seq(connection, layout, scope, position.global_seq)
            return await locating.place_of_number(connection, layout, scope, position.number or 0)

    async def streams_page(
        self,
        *,
        after: StreamKey | None = None,
        prefix: str = "",
        match: str | None = None,
        contains: str | None = None,
        recent: bool = False,
        limit: int = _STREAM_PAGE,
        backwards: bool = False,
    ) -> StreamPage:
        """Return a page of streams, by name or by `recent` activity, from the key `after` on.

        `prefix`, the glob `match`, or the text that an id `contains` choose by id. By name, `backwards` reads towards
        the start. A page costs the same at any size of the store; it may hold fewer streams than `limit`, even none,
        although more follow.
        """
        if recent and backwards:
            raise InvalidQuery("streams by recent activity are listed from the newest only")
        if contains is not None:
            if match is not None:
                raise InvalidQuery("choose streams by a glob or by what their ids contain, not by both")
            match = glob_containing(contains)
        if match is not None and glob_prefix(match).startswith(prefix):
            prefix = glob_prefix(match)
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            if recent:
                return await reader.streams_by_recent(
                    connection,
                    before=None if after is None else after.global_seq,
                    prefix=prefix,
                    match=match,
                    limit=limit,
                    scan=_RECENT_SCAN if match is None else _SEARCH_SCAN,
                )
            return await reader.streams_by_name(
                connection,
                after=None if after is None else after.stream_id,
                prefix=prefix,
                match=match,
                limit=limit,
                scan=limit if match is None else max(_SEARCH_SCAN, limit),
                backwards=backwards,
            )

    async def streams(
        self,
        *,
        prefix: str = "",
        match: str | None = None,
        contains: str | None = None,
        recent: bool = False,
        limit: int | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> AsyncIterator[StreamSummary]:
        """Yield streams, by name or by `recent` activity, at most `limit`; see `streams_page` for how to choose.

        `on_progress` is told how many streams (by recent activity: events) have been looked at.
        """
        check_limit(limit)
        looked = 0
        after: StreamKey | None = None
        left = limit
        while left is None or left > 0:
            size = _STREAM_PAGE if left is None else min(_STREAM_PAGE, left)
            page = await self.streams_page(
                after=after, prefix=prefix, match=match, contains=contains, recent=recent, limit=size
            )
            looked += page.looked
            if on_progress is not None:
                on_progress(looked)
            for stream in page.streams[:left]:
                yield stream
            if page.next_after is None:
                return
            after = page.next_after
            left = None if left is None else left - len(page.streams)

    async def categories_page(
        self, *, after: str | None = None, limit: int = _CATEGORY_PAGE, backwards: bool = False
    ) -> CategoryPage:
        """Return a page of categories (the part of a stream's id before the first ``-``) after the place `after`.

        Up to 100 streams of each are counted, more are estimated. A page costs the same at any size of the store.
        """
        scale = await self.name_scale()
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            reader = CategoryReader(layout)
            return await reader.page(connection, after=after, limit=limit, backwards=backwards, scale=scale)

    async def category(self, place: str) -> CategorySummary | None:
        """Return the category at a place, None if there is none."""
        scale = await self.name_scale()
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await CategoryReader(layout).one(connection, place, scale=scale)

    async def categories(self) -> AsyncIterator[CategorySummary]:
        """Yield all categories, in the order of their ids."""
        after: str | None = None
        while True:
            page = await self.categories_page(after=after)
            for category in page.categories:
                yield category
            if page.next_after is None:
                return
            after = page.next_after

    async def name_scale(self) -> NameScale | None:
        """Return where ids lie among all stream ids, estimated; None while PostgreSQL has no statistics of them."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await name_scale(connection, layout)

    async def count_events(self, prefix: str) -> int:
        """Return how many events the streams whose id starts with `prefix` have, by counting them all."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.count_events(connection, prefix)

    async def marked(self, prefix: str, mark: Mark, on_progress: Callable[[int], None] | None = None) -> Marked:
        """Return what `delete_marked` would delete, having looked at each event; raises NotMarked as that does."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await Eraser(connection, layout, prefix, mark).look(on_progress)

    async def delete_marked(self, prefix: str, mark: Mark, on_progress: Callable[[int], None] | None = None) -> int:
        """Delete the events of the streams whose id starts with `prefix`, and return how many they were.

        For what a load test left. All must carry `mark` in their metadata, otherwise none is deleted: raises
        NotMarked. It goes in batches, each a transaction, of which `on_progress` is told; if it is broken off, the
        rest can be deleted later. The numbers of what is deleted stay as dead gaps in global_seq. A projection that
        has handled these events keeps what it made of them.
        """
        async with self._writing() as connection:
            layout, _, _ = await self._tools(connection)
            eraser = Eraser(connection, layout, prefix, mark)
            await eraser.look()
            return await eraser.delete(on_progress)

    async def trail(
        self,
        of: int | str,
        *,
        fields: FieldNames = COMMON_FIELDS,
        limit: int = _TRAIL,
        scan: int | None = _TRAIL_SCAN,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Trail:
        """Return the trail of an event: what shares its correlation id, in order, and what caused what.

        `of` is a global_seq, or as text the id of an event or a correlation id. At most `limit` events are returned,
        the first ones. Where no index finds them (`Trail.scan` says which would) at most `scan` events are looked at,
        None for all, and `on_progress` is told how many have been and how many belong to it. An event without a
        correlation id has a trail of its causes and of what it caused. Raises NotFound.
        """
        check_limit(limit)
        check_limit(scan)
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            reader = TrailReader(connection, layout, fields, limit=limit, scan=scan, on_progress=on_progress)
            trail = await (reader.of_event(of) if isinstance(of, int) else reader.of_id(of))
        if trail is None:
            raise NotFound.trail(of, reader.scanned)
        return trail

    async def stored_ids(self, prefix: str, *, page: int = _IDS_PAGE) -> AsyncIterator[list[StoredId]]:
        """Yield where each event of the streams is whose id starts with `prefix`, in pages, stream by stream in order.

        Reads them all, a page at a time in constant memory.
        """
        after: StoredId | None = None
        while True:
            async with self._connection() as connection:
                _, _, reader = await self._tools(connection)
                found = await reader.ids_page(connection, prefix, after, page)
            if found:
                yield found
            if len(found) < page:
                return
            after = found[-1]

    async def stream_outside(self, prefix: str) -> str | None:
        """Return the id of some stream that does not start with `prefix`, None if all streams do."""
        async with self._connection() as connection:
            _, _, reader = await self._tools(connection)
            return await reader.stream_outside(connection, prefix)

    async def sql(self, view: View, *, limit: int | None = None) -> str:
        """Return the query whose rows are those of `view`, at most `limit`, to be run with psql as it stands."""
        from esx.store.viewsql import sql_of

        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
        return sql_of(view, layout, limit)

    # -- following ----------------------------------------------------------------------------------------

    async def head(self) -> int:
        """Return the highest global_seq that is visible now, 0 if there are no events."""
        page = await self.preview_all_page(limit=1, backwards=True)
        return page[0].global_seq if page else 0

    async def feed(self, *, after: int = 0, where: Filter | None = None, page: int = _PAGE) -> Feed:
        """Return the ordered feed after global_seq `after`, for those who want batches and its state."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
        return self._feed(layout, after=after, where=where, page=page)

    async def feed_from_end(self, *, where: Filter | None = None, page: int = _PAGE) -> Feed:
        """Return the ordered feed of everything that becomes visible from now on.

        That includes events whose number is below the current head because their transaction was still open.
        """
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            end = await find_end(connection, layout)
        return self._feed(layout, after=end.position, where=where, page=page, skip=end.seen)

    async def feed_from_time(self, moment: datetime, *, where: Filter | None = None, page: int = _PAGE) -> Feed:
        """Return the ordered feed of the events created from `moment` on, as far as `locate` finds where they begin.

        That includes every event that becomes visible from now on, also one whose number is lower.
        """
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            # First: what becomes visible after this is given, wherever it is.
            end = await find_end(connection, layout)
            first = (await locating.place_of_moment(connection, layout, Scope(None), moment)).first
        after, skip = end.position, end.seen
        if first is not None:
            after, skip = min(first - 1, after), frozenset(number for number in skip if number < first)
        return self._feed(layout, after=after, where=where, page=page, skip=skip)

    def _feed(
        self, layout: Layout, *, after: int, where: Filter | None, page: int, skip: frozenset[int] = frozenset()
    ) -> Feed:
        return Feed(
            self._connection,
            self._doorbell,
            layout,
            after=after,
            where=where or None,
            page=page,
            skip=skip,
            tails=self._tails,
        )

    async def subscribe(
        self,
        *,
        after: int = 0,
        stream: str | None = None,
        event_type: str | None = None,
        where: str | None = None,
    ) -> AsyncIterator[Event]:
        """Yield every event after global_seq `after` once and in order: a catch-up subscription that goes on.

        `stream` and `event_type` are globs, `where` is a JSONPath over data (``$metadata`` is the metadata).
        """
        feed = await self.feed(after=after, where=Filter(stream, event_type, where))
        async for batch in feed.follow():
            for event in batch.events:
                yield event

    # -- projections --------------------------------------------------------------------------------------

    async def project(
        self,
        name: str,
        handler: EventHandler,
        *,
        stream: str | None = None,
        event_type: str | None = None,
        where: str | None = None,
        batch: int = _BATCH,
    ) -> None:
        """Keep a read model up to date with ``await handler(connection, event)``, until cancelled.

        What the handler writes through `connection` happens exactly once per event, in order: it is committed together
        with the projection's checkpoint, up to `batch` events in one transaction, which is the projection's to end.
        One instance per name is active, in all processes; others wait and take over when it ends. A lost connection is
        replaced, and nothing is lost or repeated. Deadlocks, serialization failures and lock timeouts are tried again.
        At any other error the batch is rolled back and handled event by event; the event that fails then stops the
        projection. The filter is that of `subscribe`.

        Raises ProjectionFailed, InvalidQuery for a filter that makes no sense, and StoreUnavailable if the store is
        closed or cannot be reached at the start.
        """

        async def each(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
            for event in events:
                await handler(connection, event)

        await self.project_batches(name, each, stream=stream, event_type=event_type, where=where, batch=batch)

    async def project_batches(
        self,
        name: str,
        handler: BatchHandler,
        *,
        stream: str | None = None,
        event_type: str | None = None,
        where: str | None = None,
        batch: int = _BATCH,
    ) -> None:
        """Do as `project` does, with ``await handler(connection, events)`` once for each batch.

        That is faster where one statement can take many events, e.g. ``connection.executemany``. After an error the
        handler gets the events of the batch again, one at a time.
        """
        if not name:
            raise InvalidQuery("a projection needs a name")
        if batch < 1:
            raise InvalidQuery(f"a batch of {batch} events makes no sense: use a number from 1")
        chosen = Filter(stream, event_type, where)
        async with self._writing() as connection:
            layout, _, _ = await self._tools(connection)
            await projection_table.register(connection, name)
        await Projection(
            name,
            handler,
            connector=self._connector,
            make_feed=lambda lend, after: Feed(lend, self._doorbell, layout, after=after, where=chosen, page=batch),
            lend=self._connection,
            closed=lambda: self._closed,
        ).run()

    async def projections(self) -> list[ProjectionStatus]:
        """Return how far each projection has come, by name; costs the same at any size of the store."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await projection_table.read_status(connection, layout)

    async def pause_projection(self, name: str) -> None:
        """Pause a projection, wherever it runs: once this returns, it commits nothing until it is resumed.

        Waits for the batch that is being handled. Raises UnknownProjection.
        """
        async with self._writing() as connection:
            await projection_table.set_paused(connection, name, True)

    async def resume_projection(self, name: str) -> None:
        """Let a paused projection go on. Raises UnknownProjection."""
        async with self._writing() as connection:
            await projection_table.set_paused(connection, name, False)

    async def reset_projection(
        self,
        name: str,
        *,
        to: int = 0,
        clear: Callable[[asyncpg.Connection], Awaitable[object]] | None = None,
    ) -> None:
        """Make a projection start again after global_seq `to`, wherever it runs; 0 is the start of the store.

        `clear(connection)` is called in the same transaction, to empty the read model. Waits for the batch that is
        being handled. A position above 0 should be a safe one, e.g. that of a feed: events that become visible below
        it later are not handled. Raises UnknownProjection, and ProjectionFailed if `clear` raises.
        """
        async with self._at_leisure() as connection:
            await projection_table.reset(connection, name, to, clear)

    async def delete_projection(self, name: str) -> None:
        """Forget a projection that is no longer run; its read model stays. A running instance ends in ProjectionFailed.

        Raises UnknownProjection.
        """
        async with self._writing() as connection:
            await projection_table.delete(connection, name)

    # -- state --------------------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Return the state of the store in figures; costs the same at any size."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await health.read_health(connection, layout)

    async def pressure(self, application_name: str) -> Pressure:
        """Return counters of what the database has done, and what sessions of that name wait for just now."""
        async with self._connection() as connection:
            layout, _, _ = await self._tools(connection)
            return await pressure.read_pressure(connection, layout, application_name)

    async def place(self) -> Place:
        """Return where the server is, and which version it has."""
        async with self._connection() as connection:
            return await pressure.read_place(connection)

    async def doctor(self, *, full: bool = False, on_progress: Callable[[str], None] | None = None) -> list[Finding]:
        """Look for what is wrong with the store, and return what each check found, with its remedy.

        Quick at any size, unless `full` asks to look at every event too; `on_progress` is told how far that has
        come. It only reads, and does not need the tables to be there.
        """
        from esx.store.doctor.diagnosis import diagnose

        async with self._connection() as connection:
            return await diagnose(connection, pooler=self._connector.pooler, full=full, on_progress=on_progress)


class Connecting:
    """A connection being made: await it for the store, or use it with ``async with``."""

    def __init__(self, connecting: Awaitable[EventStore]) -> None:
        self._connecting = connecting
        self._store: EventStore | None = None

    def __await__(self) -> Generator[Any, Any, EventStore]:
        return self._connecting.__await__()

    async def __aenter__(self) -> EventStore:
        self._store = await self._connecting
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            await self._store.close()

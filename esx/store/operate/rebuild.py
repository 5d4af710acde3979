"""Building a read model anew in a shadow schema, while the old one serves, and swapping the two in one transaction.

The swap replaces the rows, not the tables: readers see the old rows until it commits, and the new ones after. So views,
grants, foreign keys, policies and sequences on the tables stay what they are. What a replacement of all rows would
break or fire is refused by name before anything is done: see esx/store/operate/shadow.py.
"""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import asyncpg

from esx.errors import InvalidQuery, ProjectionFailed, StoreFailed
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.driver_errors import DRIVER_ERRORS
from esx.postgres.session import Session
from esx.store.consume.handler_transaction import BatchHandler, EventHandler, in_one_line
from esx.store.feed.comparison import compare_kept
from esx.store.feed.feed import Feed
from esx.store.feed.history import history_at
from esx.store.feed.server import look
from esx.store.operate.shadow import Shadow, check_written, drop_shadow, enter_shadow, make_shadow, plan_shadow
from esx.text import visible

_LOCK_CLASS = 0x65737872  # "esxr": one rebuild of a projection at a time
_ROUNDS = 5
"""How often the shadow catches up before the swap takes what is left, however much that is."""
_CLOSE = 1000
"""How many events are handled in the swap's transaction, if it can be helped."""


class RebuildProgress(NamedTuple):
    """How far a rebuild is: its position, that of the projection, how many events it has handled, and its rate.

    `phase` is rebuilding or swapping. `left` is an estimate of the seconds left, None if nothing is known yet.
    """

    phase: str
    position: int
    target: int
    handled: int
    rate: float
    left: float | None


class Rebuilt(NamedTuple):
    """What a rebuild has done: up to which position, with how many events, and the rows of each table."""

    position: int
    handled: int
    rows: dict[str, int]


class Recorded(NamedTuple):
    """What the row of a projection says of how its read model was made."""

    id: int
    position: int
    start: int
    filter: Filter
    history: str | None


async def read_recorded(connection: asyncpg.Connection, layout: Layout, name: str) -> Recorded:
    """Return how a read model was made. Raises InvalidQuery where it cannot be made again from that."""
    row = await connection.fetchrow(
        "SELECT id, position, start, filter::text, history::text, kind "
        f"FROM {layout.ours('consumers')} WHERE name = $1",
        name,
    )
    assert row is not None
    if row["kind"] != "projection":
        raise InvalidQuery(f"{visible(name, limit=200)} is a {row['kind']}: only projections have a read model")
    recorded: dict[str, Any] = json.loads(row["filter"]) if row["filter"] else {}
    if "changed_at" in recorded:
        raise InvalidQuery(
            f"the filter of {visible(name, limit=200)} was changed at {recorded['changed_at']}, and esx knows only the "
            "new one: reset the projection, so that one filter holds for all of its read model"
        )
    return Recorded(row["id"], row["position"], row["start"], Filter(**recorded), row["history"])


class Rebuild:
    """One rebuild. `make_feed` returns a feed after a position, `session` is its own."""

    def __init__(
        self,
        name: str,
        handler: BatchHandler | EventHandler,
        *,
        batches: bool,
        layout: Layout,
        session: Session,
        make_feed: Callable[[int, Filter], Feed],
        on_progress: Callable[[RebuildProgress], object] | None,
    ) -> None:
        self._name = name
        self._handler: Callable[[asyncpg.Connection, Any], Awaitable[object]] = handler
        self._batches = batches
        self._layout = layout
        self._session = session
        self._make_feed = make_feed
        self._on_progress = on_progress
        self._skipped: frozenset[int] = frozenset()
        self._position = 0
        self._handled = 0
        self._began = time.monotonic()

    async def run(self, tables: Sequence[str]) -> Rebuilt:
        """Build the tables anew, and swap."""
        recorded = await read_recorded(self._session, self._layout, self._name)
        if not await self._session.fetchval("SELECT pg_try_advisory_lock($1, $2)", _LOCK_CLASS, recorded.id):
            raise StoreFailed(f"projection {visible(self._name, limit=200)} is being rebuilt already")
        schema = f"esx_rebuild_{recorded.id}"
        async with self._as_user():
            shadow = await plan_shadow(self._session, schema, tables, swapped=True)
            await drop_shadow(self._session, schema)
            path = await self._session.fetchval("SELECT pg_catalog.current_setting('search_path')")
            await make_shadow(self._session, shadow, path)
        try:
            return await self._fill_and_swap(shadow, recorded)
        finally:
            with contextlib.suppress(*DRIVER_ERRORS, OSError):
                await drop_shadow(self._session, schema)

    @contextlib.asynccontextmanager
    async def _as_user(self) -> AsyncIterator[None]:
        """Begin a transaction in which names are found as the user finds them."""
        async with self._session.transaction():
            await self._session.fetchval(f"SELECT {', '.join(('true', *self._session.as_user()))}")
            yield

    async def _fill_and_swap(self, shadow: Shadow, recorded: Recorded) -> Rebuilt:
        await self._read_skipped()
        self._position = recorded.start
        for _ in range(_ROUNDS):
            await self._catch_up(shadow, recorded.filter)
            row = await read_recorded(self._session, self._layout, self._name)
            if row.id != recorded.id or row.start != recorded.start or row.filter != recorded.filter:
                raise StoreFailed(f"projection {visible(self._name, limit=200)} was reset or changed meanwhile: again")
            if row.position - self._position <= _CLOSE:
                break
        # A position in another history need not be met: to make the read model anew is the remedy then.
        here = await look(self._session, self._layout)
        other = await compare_kept(self._session, self._layout, here, row.history, row.position)
        return await self._swap(shadow, recorded, meets=other is None)

    async def _read_skipped(self) -> None:
        rows = await self._session.fetch(
            f"SELECT global_seq FROM {self._layout.ours('parked_events')} WHERE consumer = $1 AND state = 'skipped'",
            self._name,
        )
        self._skipped = frozenset(row[0] for row in rows)

    async def _catch_up(self, shadow: Shadow, where: Filter) -> None:
        """Handle everything up to the safe position, a transaction for each batch."""
        feed = self._make_feed(self._position, where)
        async with contextlib.aclosing(feed.to_safe_position()) as batches:
            async for batch in batches:
                if batch.events:
                    async with self._session.transaction():
                        await self._handle(shadow, batch.events)
                self._position = batch.position
                await self._tell("rebuilding")
        self._position = max(self._position, feed.position)

    async def _handle(self, shadow: Shadow, events: Sequence[Event]) -> None:
        """Handle events in the shadow, in the transaction that is open, and check where they wrote."""
        wanted = [event for event in events if event.global_seq not in self._skipped]
        if not wanted:
            return
        await enter_shadow(self._session, shadow.schema)
        at: int | None = None
        try:
            if self._batches:
                await self._handler(self._session, wanted)
            else:
                for event in wanted:
                    at = event.global_seq
                    await self._handler(self._session, event)
        except Exception as error:
            where = f" in events {wanted[0].global_seq} to {wanted[-1].global_seq}" if at is None else ""
            raise ProjectionFailed(self._name, at, f"the rebuild failed{where}: {in_one_line(error)}") from error
        if not self._session.is_in_transaction():
            raise StoreFailed("the handler ended the transaction it was given, which is not its to end")
        await check_written(self._session, shadow.schema)
        self._handled += len(wanted)

    async def _swap(self, shadow: Shadow, recorded: Recorded, *, meets: bool) -> Rebuilt:
        """Replace the rows and move the position, in one transaction; if it `meets` the projection, not back."""
        session, rows = self._session, dict[str, int]()
        async with session.transaction():
            # The row first, as an instance that handles a batch does: it waits here until the swap is done.
            position: int | None = await session.fetchval(
                f"SELECT position FROM {self._layout.ours('projections')} WHERE name = $1 AND id = $2 FOR UPDATE",
                *(self._name, recorded.id),
            )
            if position is None:
                raise StoreFailed(f"projection {visible(self._name, limit=200)} was deleted meanwhile")
            await self._tell("swapping", position)
            if meets and position > self._position:
                await self._take_the_rest(shadow, recorded.filter, position)
            await session.fetchval(f"SELECT {', '.join(('true', *session.as_user()))}")
            for table in reversed(shadow.tables):
                await session.execute(f"LOCK TABLE {table.live} IN SHARE ROW EXCLUSIVE MODE")
                await session.execute(f"DELETE FROM {table.live}")
            for table in shadow.tables:
                done = await session.execute(
                    f"INSERT INTO {table.live} ({table.listed}) OVERRIDING SYSTEM VALUE "
                    f"SELECT {table.listed} FROM {table.shadow}"
                )
                rows[table.live] = int(done.split()[-1])
                await _carry_sequences(session, table.live, table.shadow)
            # From here on only PostgreSQL's own functions again.
            await session.fetchval("SELECT pg_catalog.set_config('search_path', '', true)")
            await self._move_checkpoint()
        return Rebuilt(self._position, self._handled, rows)

    async def _take_the_rest(self, shadow: Shadow, where: Filter, position: int) -> None:
        """Handle the events up to the projection's position, in the swap's transaction."""
        feed = self._make_feed(self._position, where)
        async with contextlib.aclosing(feed.to_safe_position()) as batches:
            async for batch in batches:
                events = [event for event in batch.events if event.global_seq <= position]
                if events:
                    await self._handle(shadow, events)
                self._position = min(batch.position, position)
                if batch.position >= position:
                    break
        if self._position < position:
            raise StoreFailed(f"events up to {position} cannot all be read now: an open writer holds the feed; again")

    async def _move_checkpoint(self) -> None:
        history = await history_at(self._session, self._layout, self._position)
        await self._session.execute(
            f"""
            UPDATE {self._layout.ours("projections")} SET position = $2, history = $3::text::jsonb, last_error = NULL,
                   error_seq = NULL, failed_at = NULL, updated_at = pg_catalog.now() WHERE name = $1
            """,
            *(self._name, self._position, history.to_json()),
        )
        await self._session.execute(
            f"DELETE FROM {self._layout.ours('parked_events')} "
            "WHERE consumer = $1 AND state <> 'skipped' AND global_seq <= $2",
            *(self._name, self._position),
        )

    async def _tell(self, phase: str, target: int | None = None) -> None:
        if self._on_progress is None:
            return
        if target is None:
            target = await self._session.fetchval(f"SELECT max(global_seq) FROM {self._layout.numbers}") or 0
        seconds = max(time.monotonic() - self._began, 0.001)
        rate = self._handled / seconds
        done = self._position
        left = None if not done else max(target - done, 0) / done * seconds
        self._on_progress(RebuildProgress(phase, done, target, self._handled, rate, left))


async def _carry_sequences(session: Session, live: str, shadow: str) -> None:
    """Let the sequences of the table go on where those of its shadow are."""
    rows = await session.fetch(
        """
        SELECT pg_catalog.pg_get_serial_sequence($1, a.attname) AS live,
               pg_catalog.pg_get_serial_sequence($2, a.attname) AS shadow
        FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
        """,
        *(live, shadow),
    )
    for row in rows:
        if row["live"] is not None and row["shadow"] is not None:
            await session.fetchval(
                f"SELECT pg_catalog.setval($1::text::regclass, s.last_value, s.is_called) FROM {row['shadow']} s",
                row["live"],
            )

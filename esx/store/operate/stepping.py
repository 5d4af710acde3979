"""Stepping through a projection: event by event, with the rows of its read model that each event changes.

The read model is made in a scratch schema, in a transaction that is rolled back at the end. Triggers note what changes.
"""

import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import asyncpg

from esx.errors import InvalidQuery, ProjectionFailed, StoreFailed
from esx.filters import Filter
from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.literals import quoted
from esx.postgres.session import Session
from esx.store.consume.handler_transaction import BatchHandler, EventHandler, in_one_line
from esx.store.feed.feed import Feed
from esx.store.operate.rebuild import read_recorded
from esx.store.operate.shadow import Shadow, check_written, enter_shadow, make_shadow, plan_shadow
from esx.text import visible

MOST_BACK = 50
"""How many steps can be taken back: each keeps a savepoint."""


class RowChange(NamedTuple):
    """A row that an event changed, before and after, as JSON; None: there was, or is, no such row."""

    table: str
    before: str | None
    after: str | None


class StepTaken(NamedTuple):
    """An event that was handled, with the rows that it changed in order."""

    event: Event
    changes: tuple[RowChange, ...]


class RowBreak(NamedTuple):
    """A row to stop at, by its table and the columns that it has there, for example its key."""

    table: str
    columns: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "RowBreak":
        """Return the row written as ``balances:{"account": "a-1"}``. Raises InvalidQuery."""
        table, _, columns = text.partition(":")
        with contextlib.suppress(ValueError):
            found = json.loads(columns)
            if table and isinstance(found, dict) and found:
                return cls(table, found)
        raise InvalidQuery(f'{visible(text, limit=200)} is no row: use TABLE:{{"column": value}}')

    def meets(self, taken: StepTaken) -> bool:
        """Return whether the event changed that row."""
        return any(
            change.table.rpartition(".")[2] == self.table.rpartition(".")[2]
            and any(
                row is not None and self.columns.items() <= json.loads(row).items()
                for row in (change.before, change.after)
            )
            for change in taken.changes
        )


class Stepper:
    """Steps through the events of a projection. Make it with `EventStore.step_projection`."""

    def __init__(
        self,
        name: str,
        handler: BatchHandler | EventHandler,
        *,
        batches: bool,
        layout: Layout,
        session: Session,
        make_feed: Callable[[int, Filter], Feed],
    ) -> None:
        self._name = name
        self._handler: Callable[[asyncpg.Connection, Any], Awaitable[object]] = handler
        self._batches = batches
        self._layout = layout
        self._session = session
        self._make_feed = make_feed
        self._where = Filter()
        self._shadow = Shadow("", ())
        self._ahead: deque[Event] = deque()
        self._events: AsyncGenerator[Event, None] | None = None
        self._taken: list[tuple[asyncpg.transaction.Transaction, StepTaken]] = []
        self.position = 0
        """The last event that was handled; where the projection began before the first."""
        self.end = 0
        """The projection's own position, up to which its events are stepped through."""

    async def begin(self, tables: Sequence[str]) -> None:
        """Make the scratch tables, in the transaction that is open."""
        session = self._session
        recorded = await read_recorded(session, self._layout, self._name)
        self.position, self.end, self._where = recorded.start, recorded.position, recorded.filter
        await session.fetchval(f"SELECT {', '.join(('true', *session.as_user()))}")
        schema = f"esx_step_{recorded.id}"
        self._shadow = await plan_shadow(session, schema, tables, swapped=False)
        path = await session.fetchval("SELECT pg_catalog.current_setting('search_path')")
        await make_shadow(session, self._shadow, path, only_inside=True)
        await session.execute(
            f"CREATE TABLE {schema}.esx_changes "
            "(id bigint GENERATED ALWAYS AS IDENTITY, name text, before jsonb, after jsonb)"
        )
        await session.execute(
            f"""
            CREATE FUNCTION {schema}.esx_note() RETURNS trigger LANGUAGE plpgsql AS $esx$
            BEGIN
                INSERT INTO {schema}.esx_changes (name, before, after) VALUES (TG_ARGV[0],
                    CASE WHEN TG_OP <> 'INSERT' THEN pg_catalog.to_jsonb(OLD) END,
                    CASE WHEN TG_OP <> 'DELETE' THEN pg_catalog.to_jsonb(NEW) END);
                RETURN NULL;
            END $esx$
            """
        )
        for table in self._shadow.tables:
            await session.execute(
                f"CREATE TRIGGER esx_note AFTER INSERT OR UPDATE OR DELETE ON {table.shadow} FOR EACH ROW "
                f"EXECUTE FUNCTION {schema}.esx_note({quoted(table.live)})"
            )
        self._events = self._read()

    async def _read(self) -> AsyncGenerator[Event, None]:
        feed = self._make_feed(self.position, self._where)
        async with contextlib.aclosing(feed.to_safe_position()) as batches:
            async for batch in batches:
                for event in batch.events:
                    if event.global_seq > self.end:
                        return
                    yield event

    async def close(self) -> None:
        """Stop reading."""
        if self._events is not None:
            await self._events.aclose()

    async def _next_event(self) -> Event | None:
        if self._ahead:
            return self._ahead.popleft()
        assert self._events is not None
        return await anext(self._events, None)

    async def step(self) -> StepTaken | None:
        """Handle the next event, and return it with what it changed; None at the end.

        Raises ProjectionFailed if the handler cannot handle it, and StoreFailed if it writes to another table; the step
        is undone then, and the same event is the next one.
        """
        event = await self._next_event()
        if event is None:
            return None
        if len(self._taken) >= MOST_BACK:
            # The savepoints lie in each other: to give up one gives up those within it.
            await self._taken[0][0].commit()
            self._taken.clear()
        savepoint = self._session.transaction()
        await savepoint.start()
        try:
            taken = await self._handle(event)
        except BaseException:
            await savepoint.rollback()
            self._ahead.appendleft(event)
            raise
        self._taken.append((savepoint, taken))
        self.position = event.global_seq
        return taken

    async def _handle(self, event: Event) -> StepTaken:
        await enter_shadow(self._session, self._shadow.schema)
        try:
            await self._handler(self._session, [event] if self._batches else event)
        except Exception as error:
            raise ProjectionFailed(self._name, event.global_seq, in_one_line(error)) from error
        if not self._session.is_in_transaction():
            raise StoreFailed("the handler ended the transaction it was given, which is not its to end")
        await check_written(self._session, self._shadow.schema)
        rows = await self._session.fetch(
            f"WITH gone AS (DELETE FROM {self._shadow.schema}.esx_changes RETURNING id, name, before, after) "
            "SELECT name, before::text, after::text FROM gone ORDER BY id"
        )
        return StepTaken(event, tuple(RowChange(*row) for row in rows))

    async def back(self) -> StepTaken | None:
        """Undo the last step, and return it; None if there is none that can be undone. At most 50 can."""
        if not self._taken:
            return None
        savepoint, taken = self._taken.pop()
        await savepoint.rollback()
        self._ahead.appendleft(taken.event)
        self.position = self._taken[-1][1].event.global_seq if self._taken else taken.event.global_seq - 1
        return taken

    async def run_to(
        self, *, event_type: str | None = None, where: str | None = None, row: RowBreak | None = None
    ) -> StepTaken | None:
        """Step until an event of that type, for which the JSONPath holds, or that changes the row; None at the end."""
        stop = None
        if event_type is not None or where is not None:
            stop = await self._next_match(Filter(self._where.stream, event_type, where))
        while (taken := await self.step()) is not None:
            if taken.event.global_seq == stop or (row is not None and row.meets(taken)):
                return taken
        return None

    async def _next_match(self, chosen: Filter) -> int | None:
        feed = self._make_feed(self.position, chosen)
        async with contextlib.aclosing(feed.to_safe_position()) as batches:
            async for batch in batches:
                for event in batch.events:
                    return event.global_seq if event.global_seq <= self.end else None
        return None

"""Stepping through a projection: event by event, with the rows of its read model that each event changes.

The read model is made in a scratch schema, in a transaction that is rolled back at the end. Triggers note what changes.
"""

import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg

from esx.errors import InvalidQuery
from esx.filters import Filter
from esx.model import Event
from esx.store.operate.replay import Replay, ReplayOf
from esx.store.operate.shadow import Shadow, make_shadow, note_changes, plan_shadow
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
            found = json.loads(columns, parse_int=Decimal, parse_float=Decimal)
            if table and isinstance(found, dict) and found:
                return cls(table, found)
        raise InvalidQuery(f'{visible(text, limit=200)} is no row: use TABLE:{{"column": value}}')

    def meets(self, taken: StepTaken) -> bool:
        """Return whether the event changed that row."""
        return any(
            change.table.rpartition(".")[2] == self.table.rpartition(".")[2]
            and any(row is not None and self._fits(row) for row in (change.before, change.after))
            for change in taken.changes
        )

    def _fits(self, row: str) -> bool:
        # PostgreSQL has numbers with more digits than Python makes integers of.
        found = json.loads(row, parse_int=Decimal, parse_float=Decimal)
        return all(column in found and found[column] == value for column, value in self.columns.items())


class Stepper(Replay):
    """Steps through the events of a projection. Make it with `EventStore.step_projection`."""

    doing = "step"

    def __init__(self, given: ReplayOf) -> None:
        super().__init__(given)
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
        recorded = await self._recorded()
        await self._leave_out()
        self.position, self.end, self._where = recorded.start, recorded.position, recorded.filter
        self._shadow = shadow = await plan_shadow(session, f"esx_step_{recorded.id}", tables, swapped=False)
        await make_shadow(session, shadow, only_inside=True)
        await session.execute(
            f"CREATE SCHEMA {shadow.notes}; CREATE TABLE {shadow.notes}.changes "
            "(id bigint GENERATED ALWAYS AS IDENTITY, name text, before jsonb, after jsonb)"
        )
        for table in shadow.tables:
            await note_changes(
                session,
                shadow,
                table,
                f"INSERT INTO {shadow.notes}.changes (name, before, after) VALUES (TG_ARGV[0], "
                "CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END, "
                "CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);",
            )
        self._events = self._singly(self.position, self._where)

    async def _singly(self, after: int, where: Filter) -> AsyncGenerator[Event, None]:
        """Yield the events that are stepped through, after a position, and of them those of a filter."""
        async with contextlib.aclosing(self._read(after, where, self.end)) as parts:
            async for part in parts:
                for event in part.events:
                    if event.global_seq not in self._left_out:
                        yield event

    async def close(self) -> None:
        """Stop reading."""
        if self._events is not None:
            await self._events.aclose()

    async def _next_event(self) -> Event | None:
        if self._ahead:
            return self._ahead.popleft()
        if self._events is None:
            return None
        try:
            return await anext(self._events, None)
        except BaseException:
            # The generator has ended with the error: read again where it was, in case the caller goes on.
            self._events = self._singly(self.position, self._where)
            raise

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
            taken = await self._take(event)
        except BaseException:
            await savepoint.rollback()
            self._ahead.appendleft(event)
            raise
        self._taken.append((savepoint, taken))
        self.position = event.global_seq
        return taken

    async def _take(self, event: Event) -> StepTaken:
        await self._handle(self._shadow, [event])
        rows = await self._session.fetch(
            f"WITH gone AS (DELETE FROM {self._shadow.notes}.changes RETURNING id, name, before, after) "
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
        if event_type is None and where is None:
            while (taken := await self.step()) is not None and not (row is not None and row.meets(taken)):
                pass
            return taken
        # The breakpoints' filter may let pass what the projection does not handle, so each is met at its number.
        stops = self._singly(self.position, Filter(self._where.stream, event_type, where))
        async with contextlib.aclosing(stops):
            stop = await anext(stops, None)
            while (taken := await self.step()) is not None:
                number = taken.event.global_seq
                while stop is not None and stop.global_seq < number:
                    stop = await anext(stops, None)
                if (stop is not None and stop.global_seq == number) or (row is not None and row.meets(taken)):
                    return taken
        return None

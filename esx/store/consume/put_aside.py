"""The events that a consumer has put aside: parked ones, which wait for a user, and skipped ones.

If an event of a stream is parked, the later events of that stream are parked behind it: so the order within a stream
holds. The rest goes on. A parked event is handled when a user asks for it, by the instance that runs the consumer.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import asyncpg

from esx.errors import StoreFailed
from esx.layouts.layout import Layout
from esx.model import Event
from esx.postgres.values import UNREADABLE, fetch
from esx.store.rows import events_of

OnError = Literal["stop", "park", "skip"]
"""What a consumer does with an event that it cannot handle: end, park it, or skip it."""
MOST_WAITING = 10_000
"""How many events may wait: more would mean that it is not the events that are wrong."""
STATES = ("parked", "retry", "skipped")


class PutAside(NamedTuple):
    """An event that was put aside.

    `state` is parked, retry if the instance that runs the consumer is to handle it now, or skipped if it was given up.
    `error` says why, and `attempts` how often it was tried. The time is that of the last attempt.
    """

    global_seq: int
    stream_id: str
    event_type: str
    state: str
    error: str
    attempts: int
    parked_at: datetime


async def read_put_aside(
    connection: asyncpg.Connection, layout: Layout, name: str, *, states: Sequence[str] = STATES, limit: int = 1000
) -> list[PutAside]:
    """Return the events that a consumer has put aside, in the global order."""
    rows = await connection.fetch(
        f"""
        SELECT global_seq, stream_id, event_type, state, error, attempts, parked_at
        FROM {layout.ours("parked_events")} WHERE consumer = $1 AND state = ANY($2::text[])
        ORDER BY global_seq LIMIT $3
        """,
        *(name, list(states), limit),
    )
    return [PutAside(*row) for row in rows]


async def forget_put_aside(connection: asyncpg.Connection, layout: Layout, name: str, after: int) -> None:
    """Forget the events after a position, as they will be handled again."""
    await connection.execute(
        f"DELETE FROM {layout.ours('parked_events')} WHERE consumer = $1 AND global_seq > $2", name, after
    )


class Aside:
    """What one consumer has put aside, for the instance that runs it."""

    def __init__(self, layout: Layout, name: str) -> None:
        self._layout = layout
        self._name = name
        self._table = layout.ours("parked_events")
        self.streams: frozenset[str] = frozenset()
        """The streams of which events wait, and whose later events have to wait too."""
        self._waiting = 0

    async def load(self, connection: asyncpg.Connection, *, needed: bool) -> None:
        """Read which streams wait. Raises StoreFailed where it is `needed`, and this user may not use the table."""
        usable = await connection.fetchval(
            """
            SELECT bool_and(has_table_privilege(attrelid, right_to)) FROM pg_attribute
            CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) right_to
            WHERE attrelid = to_regclass($1) AND attname = 'state' AND NOT attisdropped
            """,
            self._table,
        )
        if not usable:
            if needed:
                raise StoreFailed(
                    "events cannot be parked or skipped there: it takes SELECT, INSERT, UPDATE and DELETE on "
                    "parked_events, which `esx init` completes"
                )
            self.streams, self._waiting = frozenset(), 0
            return
        rows = await connection.fetch(
            f"SELECT stream_id, count(*) FROM {self._table} WHERE consumer = $1 AND state <> 'skipped' GROUP BY 1",
            self._name,
        )
        self.streams = frozenset(row[0] for row in rows)
        self._waiting = sum(row[1] for row in rows)

    def full(self, more: int) -> bool:
        """Return whether no `more` events can be parked."""
        return self._waiting + more > MOST_WAITING

    def split(self, events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """Return the events that can be handled, and those that have to wait behind another of their stream."""
        if not self.streams:
            return list(events), []
        ready = [event for event in events if event.stream_id not in self.streams]
        return ready, [event for event in events if event.stream_id in self.streams]

    async def add(self, connection: asyncpg.Connection, event: Event, error: str, state: str) -> None:
        """Put an event aside that failed, in the transaction that moves the checkpoint over it."""
        statement = f"""
            INSERT INTO {self._table} (error, consumer, global_seq, stream_id, event_type, state)
            VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (consumer, global_seq) DO UPDATE
            SET error = excluded.error, state = excluded.state, attempts = parked_events.attempts + 1,
                parked_at = pg_catalog.now()
        """
        values = (self._name, event.global_seq, event.stream_id, event.event_type, state)
        await self._execute(connection, statement, error, *values)

    async def add_behind(self, connection: asyncpg.Connection, events: Sequence[Event]) -> None:
        """Put events aside that have to wait, in the transaction that moves the checkpoint over them.

        If nothing waits before them any more, they are marked to be handled at once, also those that were put aside
        before a crash.
        """
        await connection.execute(
            f"""
            INSERT INTO {self._table} (consumer, global_seq, stream_id, event_type, error, attempts, state)
            SELECT $1, n.global_seq, n.stream_id, n.event_type,
                   pg_catalog.concat('waits for event ', first.global_seq), 0,
                   CASE WHEN first.global_seq IS NULL THEN 'retry' ELSE 'parked' END
            FROM ROWS FROM (pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::text[]),
                            pg_catalog.unnest($4::text[])) n (global_seq, stream_id, event_type)
            LEFT JOIN LATERAL (
                SELECT pg_catalog.min(p.global_seq) AS global_seq FROM {self._table} p
                WHERE p.consumer = $1 AND p.stream_id = n.stream_id AND p.state <> 'skipped'
                    AND p.global_seq < n.global_seq
            ) first ON true
            ON CONFLICT (consumer, global_seq) DO UPDATE SET state = excluded.state
            WHERE parked_events.state = 'parked' AND parked_events.attempts = 0 AND excluded.state = 'retry'
            """,
            self._name,
            [event.global_seq for event in events],
            [event.stream_id for event in events],
            [event.event_type for event in events],
        )

    async def due(self, connection: asyncpg.Connection) -> list[str]:
        """Return the streams whose first waiting event is to be tried again, at most 100."""
        rows = await connection.fetch(
            f"""
            SELECT stream_id FROM (
                SELECT DISTINCT ON (stream_id) stream_id, state FROM {self._table}
                WHERE consumer = $1 AND state <> 'skipped' ORDER BY stream_id, global_seq
            ) first WHERE state = 'retry' LIMIT 100
            """,
            self._name,
        )
        return [row[0] for row in rows]

    async def waiting(self, connection: asyncpg.Connection, stream: str, limit: int) -> list[int]:
        """Return the numbers of the first events of a stream that wait, in order."""
        rows = await connection.fetch(
            f"SELECT global_seq FROM {self._table} WHERE consumer = $1 AND stream_id = $2 AND state <> 'skipped' "
            "ORDER BY global_seq LIMIT $3",
            *(self._name, stream, limit),
        )
        return [row[0] for row in rows]

    async def read(self, connection: asyncpg.Connection, numbers: Collection[int]) -> list[Event]:
        """Return the events with these numbers that are still there, in order."""
        rows = await fetch(
            connection,
            f"SELECT {self._layout.columns()} FROM {self._layout.table} e WHERE e.global_seq = ANY($1::bigint[]) "
            "ORDER BY e.global_seq",
            list(numbers),
        )
        return list(events_of(self._layout)(rows))

    async def remove(self, connection: asyncpg.Connection, numbers: Collection[int], transaction: str) -> bool:
        """Forget events that were handled; False if they wait no more, or this is another transaction."""
        rows = await connection.fetch(
            f"DELETE FROM {self._table} WHERE consumer = $1 AND global_seq = ANY($2::bigint[]) AND state <> 'skipped' "
            "AND $3 = pg_catalog.pg_current_xact_id()::text RETURNING true",
            *(self._name, list(numbers), transaction),
        )
        return len(rows) == len(numbers)

    async def failed_again(self, connection: asyncpg.Connection, stream: str, global_seq: int, error: str) -> None:
        """Park a stream again whose first waiting event failed, unless that event was skipped meanwhile."""
        first = f"""
            UPDATE {self._table} SET state = 'parked', attempts = attempts + 1, error = $1, parked_at = pg_catalog.now()
            WHERE consumer = $2 AND global_seq = $3 AND state <> 'skipped'
        """
        behind = f"UPDATE {self._table} SET state = 'parked' WHERE consumer = $1 AND stream_id = $2 AND state = 'retry'"
        async with connection.transaction():
            if await self._execute(connection, first, error, self._name, global_seq) != "UPDATE 0":
                await connection.execute(behind, self._name, stream)

    @staticmethod
    async def _execute(connection: asyncpg.Connection, statement: str, error: str, *values: object) -> str:
        try:
            async with connection.transaction():
                return await connection.execute(statement, error, *values)
        except UNREADABLE:  # the database's encoding lacks a character of it
            return await connection.execute(statement, error.encode("ascii", "backslashreplace").decode(), *values)

"""Skipping an event that a consumer cannot handle, and asking for another attempt at those that it has parked."""

from typing import NamedTuple

import asyncpg

from esx.errors import InvalidQuery, NotFound, UnknownConsumer
from esx.layouts.layout import Layout
from esx.store.consume.put_aside import PutAside
from esx.store.feed.comparison import compare_kept
from esx.store.feed.history import history_at
from esx.store.feed.server import look
from esx.text import visible


class Skippable(NamedTuple):
    """An event that can be skipped: parked, or the one that stopped its consumer; `waiting` are parked behind it."""

    global_seq: int
    stream_id: str
    event_type: str
    error: str
    parked: bool
    waiting: int

    @property
    def about(self) -> str:
        """Its type and its stream, for people."""
        return f"{visible(self.event_type, limit=100)} of {visible(self.stream_id, limit=100)}"


async def find_skippable(
    connection: asyncpg.Connection, layout: Layout, name: str, global_seq: int | None
) -> Skippable:
    """Return the event to skip: the one with this number, which is parked or stopped the consumer, or what stopped it.

    Raises UnknownConsumer, NotFound, and InvalidQuery where the consumer has not failed.
    """
    if global_seq is not None and (parked := await _parked(connection, layout, name, global_seq)) is not None:
        return parked
    row = await connection.fetchrow(
        f"SELECT position, last_error, error_seq FROM {layout.ours('consumers')} WHERE name = $1", name
    )
    if row is None:
        raise UnknownConsumer(name)
    if global_seq is not None and global_seq != row["error_seq"]:
        raise NotFound(f"{visible(name, limit=200)} has not parked event {global_seq}, and did not fail there")
    if row["last_error"] is None or row["error_seq"] is None:
        why = "has not failed" if row["last_error"] is None else f"has not failed at an event: {row['last_error']}"
        raise InvalidQuery(
            f"{visible(name, limit=200)} {visible(why, limit=1000)}; a parked event is skipped by its number"
        )
    event = await connection.fetchrow(
        f"SELECT stream_id, event_type FROM {layout.table} WHERE global_seq = $1", row["error_seq"]
    )
    if event is None or row["error_seq"] <= row["position"]:
        raise NotFound(f"event {row['error_seq']} is no longer there: start the consumer again")
    return Skippable(row["error_seq"], event[0], event[1], row["last_error"], parked=False, waiting=0)


async def _parked(connection: asyncpg.Connection, layout: Layout, name: str, global_seq: int) -> Skippable | None:
    row = await connection.fetchrow(
        f"""
        SELECT p.stream_id, p.event_type, p.error, (
            SELECT count(*) FROM {layout.ours("parked_events")} b
            WHERE b.consumer = $1 AND b.state <> 'skipped' AND b.stream_id = p.stream_id AND b.global_seq > p.global_seq
        )
        FROM {layout.ours("parked_events")} p WHERE p.consumer = $1 AND p.global_seq = $2 AND p.state <> 'skipped'
        """,
        *(name, global_seq),
    )
    if row is None:
        return None
    return Skippable(global_seq, row[0], row[1], row[2], parked=True, waiting=row[3])


async def skip(connection: asyncpg.Connection, layout: Layout, name: str, global_seq: int | None) -> PutAside:
    """Skip an event, in one transaction, and keep a record of it; raises as `find_skippable`.

    Events that are parked behind it are marked to be handled.
    """
    async with connection.transaction():
        # The row first, as an instance that handles a batch does.
        await connection.execute(f"SELECT FROM {layout.ours('consumers')} WHERE name = $1 FOR UPDATE", name)
        found = await find_skippable(connection, layout, name, global_seq)
        if found.parked:
            await _skip_parked(connection, layout, name, found)
        else:
            await _skip_next(connection, layout, name, found)
        row = await connection.fetchrow(
            f"""
            SELECT global_seq, stream_id, event_type, state, error, attempts, parked_at
            FROM {layout.ours("parked_events")} WHERE consumer = $1 AND global_seq = $2
            """,
            *(name, found.global_seq),
        )
        assert row is not None
        return PutAside(*row)


async def _skip_parked(connection: asyncpg.Connection, layout: Layout, name: str, found: Skippable) -> None:
    table = layout.ours("parked_events")
    first = await connection.fetchval(
        f"SELECT min(global_seq) FROM {table} WHERE consumer = $1 AND stream_id = $2 AND state <> 'skipped'",
        *(name, found.stream_id),
    )
    await connection.execute(
        f"UPDATE {table} SET state = 'skipped' WHERE consumer = $1 AND global_seq = $2", name, found.global_seq
    )
    if first == found.global_seq:
        await mark_retry(connection, layout, name, [found.stream_id])


async def _skip_next(connection: asyncpg.Connection, layout: Layout, name: str, found: Skippable) -> None:
    consumers = layout.ours("consumers")
    row = await connection.fetchrow(f"SELECT position, kind, history::text FROM {consumers} WHERE name = $1", name)
    assert row is not None
    # The history that is kept next is that of the events that are there: so they must be those that were handled.
    different = await compare_kept(connection, layout, await look(connection, layout), row["history"], row["position"])
    if different is not None:
        raise different.error(row["position"], projection=name)
    # Without a history, a relay tells its target where it goes on, as after a reset.
    history = (
        (await history_at(connection, layout, found.global_seq)).to_json() if row["kind"] == "projection" else None
    )
    await connection.execute(
        f"""
        INSERT INTO {layout.ours("parked_events")} (consumer, global_seq, stream_id, event_type, error, state)
        VALUES ($1, $2, $3, $4, $5, 'skipped')
        ON CONFLICT (consumer, global_seq) DO UPDATE SET error = excluded.error, state = 'skipped', parked_at = now()
        """,
        *(name, found.global_seq, found.stream_id, found.event_type, found.error),
    )
    await connection.execute(
        f"""
        UPDATE {consumers} SET position = $2, history = $3::text::jsonb, last_error = NULL, error_seq = NULL,
               failed_at = NULL, updated_at = now() WHERE name = $1
        """,
        *(name, found.global_seq, history),
    )


async def mark_retry(connection: asyncpg.Connection, layout: Layout, name: str, streams: list[str]) -> int:
    """Mark the parked events of these streams to be handled; return how many are marked then."""
    rows = await connection.fetch(
        f"UPDATE {layout.ours('parked_events')} SET state = 'retry' "
        "WHERE consumer = $1 AND state <> 'skipped' AND stream_id = ANY ($2::text[]) RETURNING true",
        *(name, streams),
    )
    return len(rows)


async def parked_streams(
    connection: asyncpg.Connection, layout: Layout, name: str, global_seq: int | None
) -> dict[str, int]:
    """Return how many events of each stream wait, or of the one stream of an event. Raises NotFound if none does."""
    rows = await connection.fetch(
        f"""
        SELECT stream_id, count(*) FROM {layout.ours("parked_events")} p
        WHERE consumer = $1 AND state <> 'skipped' AND ($2::bigint IS NULL OR EXISTS (
            SELECT FROM {layout.ours("parked_events")} o WHERE o.consumer = $1 AND o.global_seq = $2
               AND o.state <> 'skipped' AND o.stream_id = p.stream_id))
        GROUP BY stream_id
        """,
        *(name, global_seq),
    )
    if not rows:
        what = "no events" if global_seq is None else f"not event {global_seq}"
        raise NotFound(f"{visible(name, limit=200)} has parked {what}")
    return {row[0]: row[1] for row in rows}

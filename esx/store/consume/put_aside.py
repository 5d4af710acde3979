"""The events that a consumer has put aside: parked ones, which wait for a user, and skipped ones.

If an event of a stream is parked, the later events of that stream are parked behind it: so the order within a stream
holds. The rest goes on. A parked event is handled when a user asks for it, by the instance that runs the consumer.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from esx.layouts.layout import Layout

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

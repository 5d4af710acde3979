"""How old the events are that consumers of another tool's store have still to handle."""

import time
from collections.abc import Collection

import asyncpg

from esx.layouts.layout import Layout
from esx.postgres.driver_errors import is_cancelled
from esx.postgres.session import Session
from esx.postgres.settings import limit_within

_PATIENCE = 2.0
"""For how many seconds ages are asked for: where no index serves the order, each looks at all events."""


async def read_ages(
    connection: Session, layout: Layout, positions: Collection[int], *, patience: float = _PATIENCE
) -> dict[int, float]:
    """Return, in seconds by position, the age of the first visible event after each position, where it is known.

    It is not where that event has no time, or none that is finite, and not for the highest positions where the lowest
    ones take longer than `patience`, in seconds.
    """
    found: dict[int, float] = {}
    if not positions or not layout.timed or not layout.numbered:
        return found
    query = f"""
        SELECT p.position, extract(epoch FROM clock_timestamp() - next.created_at)::float8
        FROM unnest($1::bigint[]) p (position)
        CROSS JOIN LATERAL (SELECT e.created_at FROM {layout.table} e WHERE e.global_seq > p.position
                            ORDER BY e.global_seq LIMIT 1) next
        WHERE isfinite(next.created_at)
    """
    left, taken = sorted({*positions}), 1
    deadline = time.monotonic() + patience
    # It is rolled back: the limit ends with it, and a statement that fails does not end the transaction around it.
    transaction = connection.transaction()
    await transaction.start()
    try:
        limit = limit_within(connection, "statement_timeout", max(round(patience * 1000), 1))
        await connection.execute(f"SELECT set_config('statement_timeout', {limit}, true)")
        while left and time.monotonic() < deadline:
            now, left = left[:taken], left[taken:]
            found |= {row[0]: max(row[1], 0.0) for row in await connection.fetch(query, now)}
            taken *= 2
    except asyncpg.PostgresError as error:
        # Where a time is read from a payload, that may be none.
        if is_cancelled(error) and time.monotonic() < deadline:
            raise
    finally:
        await transaction.rollback()
    return found

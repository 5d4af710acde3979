"""How many events were appended, by category: what a metric of appends counts."""

import asyncpg

from esx.layouts.category import category_sql
from esx.layouts.layout import Layout

_MOST = 100_000
"""How many events are counted at once."""


async def count_appended(
    connection: asyncpg.Connection, layout: Layout, after: int, upto: int
) -> tuple[int, dict[str, int]]:
    """Count the events after a position, up to another, by category; return up to where they were counted.

    That is `upto`, or less where there are more than 100,000. `upto` is to be a safe position.
    """
    stream = layout.place("e")[0]
    rows = await connection.fetch(
        f"""
        SELECT category, count(*), max(global_seq) FROM (
            SELECT e.global_seq, {category_sql(layout, stream)} AS category FROM {layout.table} e
            WHERE e.global_seq > $1 AND e.global_seq <= $2 ORDER BY e.global_seq LIMIT {_MOST}
        ) few GROUP BY category
        """,
        *(after, upto),
    )
    counts = {row[0]: row[1] for row in rows}
    end = upto if sum(counts.values()) < _MOST else max(row[2] for row in rows)
    return end, counts

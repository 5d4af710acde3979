"""Categories that a column has: they are those of a bounded number of streams, and of streams drawn at random."""

from collections import Counter

import asyncpg

from esx.layouts.category import column_category
from esx.layouts.layout import Layout
from esx.postgres.values import as_bytes, fetch
from esx.store.read.estimates import COUNTED_STREAMS, Estimate, Sample, draw_streams


async def column_categories(
    connection: asyncpg.Connection, layout: Layout, sample: Sample | None
) -> tuple[dict[str, Estimate], int | None]:
    """Return the categories with their numbers of streams, in order, and at how many streams it looked.

    That is None if these are all: then nothing is estimated, and no category is missing.
    """
    rows = await fetch(connection, _first_streams(layout))
    counted = Counter({category: count for category, count, _ in rows if count})
    looked = max((last for *_, last in rows), default=0)
    if looked <= COUNTED_STREAMS:
        return {name: Estimate.counted(counted[name]) for name in _sorted(counted)}, None
    sample = sample or await draw_streams(connection, layout)
    if sample is None:
        return {name: Estimate.at_least(counted[name]) for name in _sorted(counted)}, looked
    drawn = {stream for stream, _ in sample.found}
    of = dict(
        await fetch(
            connection,
            f"SELECT s.id, {column_category(layout, 's.id')} FROM unnest($1::text[]) s (id)",
            list(drawn),
        )
    )
    found = {}
    for name in _sorted({*counted, *of.values()}):
        chosen = {stream for stream in drawn if of[stream] == name}
        found[name] = sample.streams(max(counted[name], 1), chosen.__contains__)
    return found, looked + len(drawn)


def _sorted(names: "set[str] | Counter[str]") -> list[str]:
    return sorted(names, key=as_bytes)


def _first_streams(layout: Layout) -> str:
    """Return the query for the categories of the first streams, each with its count and the number of the last one."""
    there, order = layout.name_there(), layout.name_order("ASC")
    return f"""
        WITH RECURSIVE ids (stream_id, n) AS (
            (SELECT s.stream_id, 1 FROM {layout.names} s WHERE {there} ORDER BY {order} LIMIT 1)
            UNION ALL
            SELECT f.stream_id, ids.n + 1 FROM ids CROSS JOIN LATERAL (
                SELECT s.stream_id FROM {layout.names} s
                WHERE {layout.name_compared(">", "ids.stream_id")} AND {there} ORDER BY {order} LIMIT 1) f
            WHERE ids.n <= {COUNTED_STREAMS}
        )
        SELECT {column_category(layout, "ids.stream_id")},
               count(*) FILTER (WHERE {layout.listed("ids.stream_id")}), max(n)
        FROM ids GROUP BY 1
    """

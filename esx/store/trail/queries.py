"""Queries for the events of a trail, and the indexes that would help them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from esx.layouts.layout import Layout
from esx.postgres.literals import literal
from esx.store.rows import start_text
from esx.store.trail.ids import Id, Ids
from esx.store.trail.trail import TrailEvent, same


def correlated_sql(layout: Layout, ids: Ids, among: Sequence[Id]) -> str:
    """Return the query for a page of the events with correlation id $1 after global_seq $2, at most $3 of them.

    Each of the ids `among` should have an index, with global_seq: then a page touches its own rows only.
    """
    pages = [
        f"(SELECT {columns(layout, ids)} FROM {ids.source} "
        f"WHERE {each.value} = $1 AND e.global_seq > $2::bigint ORDER BY e.global_seq LIMIT $3)"
        for each in among
    ]
    if len(pages) == 1:
        return pages[0]
    return f"SELECT * FROM ({' UNION '.join(pages)}) page ORDER BY 1 LIMIT $3"


def as_uuid(text: str) -> UUID | None:
    """Return the UUID that `text` is, if it is written as one."""
    try:
        uuid = UUID(text)
    except ValueError:
        return None
    return uuid if str(uuid) == same(text) else None


def columns(layout: Layout, ids: Ids) -> str:
    """Return the select list that makes one `TrailEvent` of a row of `Ids.source`."""
    event_id = "NULL::uuid" if layout.event_id is None else f"e.{layout.event_id}"
    stream, number, event_type = layout.place("e")
    start, size = layout.data_start("e")
    return (
        f"e.global_seq, {stream}, {number}, {event_type}, "
        f"{start}, e.created_at, {event_id}, {ids.own}, {ids.cause}, {size}"
    )


def trail_event(row: Sequence[Any]) -> TrailEvent:
    """Return the event of a row of `columns`."""
    event = TrailEvent._make(row)
    return event._replace(preview=start_text(event.preview, event.data_bytes))


def field_index(layout: Layout, name: str) -> str:
    """Return the statement that makes an index on a metadata field."""
    value = f"metadata ->> {literal(name)}"
    return f"CREATE INDEX {layout.index_on} (({value}), global_seq) WHERE ({value}) IS NOT NULL;"


def id_index(layout: Layout) -> str:
    """Return the statement that makes an index on the ids of events."""
    column = layout.event_id or "event_id"
    if layout.partitioned:  # where a unique one would need the columns that it is partitioned by
        return f"CREATE INDEX {layout.index_on} ({column});"
    on = layout.index_on.replace(" ON ", " events_event_id_key ON ", 1)
    return f"CREATE UNIQUE INDEX {on} ({column});"

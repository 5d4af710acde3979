"""Marten. Source: JasperFx/marten, Events/Schema/EventsTable.cs and StreamsTable.cs.

Its streams are numbered from 1. Their ids are of type uuid or varchar, as the application has chosen. With several
tenants in one table a stream is one of a tenant's: then the unique index begins with the tenant. Archived events can be
in a partition of their own. Which metadata there are depends on the version and the application.
"""

from dataclasses import replace

from esx.layouts.foreign.kind import (
    CheckpointColumns,
    Checkpoints,
    EventColumns,
    Reading,
    StoreCheck,
    StoreKind,
    id_column,
    joined_ids,
    kept,
    uuid_or_text,
)
from esx.layouts.foreign.tables import StoreTable, StoreTables
from esx.layouts.stream_keys import ID


def _reading(tables: StoreTables) -> Reading:
    events = tables.events
    stream_id, keys = uuid_or_text(events, "stream_id")
    [one] = (ID,) if keys is None else keys.values(ID)
    reading = Reading(
        EventColumns(
            global_seq="r.seq_id",
            stream_id=stream_id,
            stream_seq="r.version",
            event_type="r.type",
            data=events.payload("data"),
            metadata=events.metadata("headers"),
            created_at="r.timestamp",
            event_id="r.id",
        ),
        keys=keys,
        category=_category(tables, one),
        correlation=id_column(events, "correlation_id"),
        causation=id_column(events, "causation_id"),
    )
    if "tenant_id" not in events.columns:
        return reading
    stream_id, keys = joined_ids(events, ("tenant_id", "stream_id"))
    # Their categories are the tenants, with which the ids begin.
    tenants = replace(reading, columns=replace(reading.columns, stream_id=stream_id), keys=keys, category=None)
    return replace(reading, otherwise=tenants)


def _category(tables: StoreTables, stream_id: str) -> str | None:
    streams = tables.beside["mt_streams"]
    if not streams.readable.issuperset(("id", "type")):
        return None
    # In partitions by is_archived an id can be there twice.
    return f"(SELECT c.type FROM {streams.quoted} c WHERE c.id = {stream_id} LIMIT 1)"


def _progress(_tables: StoreTables, table: StoreTable) -> CheckpointColumns:
    return CheckpointColumns("c.name", "c.last_seq_id", updated_at=kept(table, "last_updated"))


def _high_water(tables: StoreTables, old: float) -> str | None:
    progress = next((each for each in tables.checkpoints if "last_updated" in each.columns), None)
    if progress is None:
        return None
    return f"""
        SELECT p.last_seq_id AS mark, m.last, extract(epoch FROM clock_timestamp() - p.last_updated)::bigint AS still,
               CASE WHEN n.seq_id = p.last_seq_id + 1 THEN 'no daemon moves it, though the next event is there'
                    ELSE format('numbers %s to %s are missing, and the daemon waits for them until its threshold',
                                p.last_seq_id + 1, n.seq_id - 1) END AS why
        FROM {progress.quoted} p
        CROSS JOIN (SELECT max(e.seq_id) AS last FROM {tables.events.quoted} e) m
        CROSS JOIN LATERAL (SELECT e.seq_id FROM {tables.events.quoted} e WHERE e.seq_id > p.last_seq_id
                            ORDER BY e.seq_id LIMIT 1) n
        WHERE p.name = 'HighWaterMark' AND p.last_seq_id < m.last
          AND p.last_updated < clock_timestamp() - make_interval(secs => {old})
    """


KIND = StoreKind(
    "marten",
    "Marten",
    has=("seq_id", "id", "stream_id", "version", "data", "type", "timestamp"),
    beside={"mt_streams": ("id", "type", "version", "timestamp")},
    reading=_reading,
    first=1,
    draws_apart=True,
    also_placed=("is_archived",),
    caution="Marten can draw an event's number before its transaction begins: the feed tells what it finds missed",
    checkpoints=(Checkpoints(("name", "last_seq_id"), _progress),),
    checks=(
        StoreCheck(
            "high-water-mark",
            "warning",
            "the daemon's high-water mark is {mark}, the last event {last}, and it has not moved for {still} s: {why}",
            "the high-water mark of Marten's daemon is at the last event, or moves, or there is none",
            _high_water,
        ),
    ),
)

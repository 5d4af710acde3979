"""commanded EventStore. Source: commanded/eventstore, sql/init.ex.

The table stream_events has a row for each event and stream; those of stream 0 are the global order. A stream can also
have links to events of others. Payloads are bytes, json or jsonb, as the application has chosen.
"""

from esx.layouts.foreign.kind import (
    HOLDER,
    SESSIONS,
    CheckpointColumns,
    Checkpoints,
    EventColumns,
    Names,
    Reading,
    StoreCheck,
    StoreKind,
    id_column,
)
from esx.layouts.foreign.tables import StoreTable, StoreTables
from esx.layouts.stream_keys import ID, Made


def _reading(tables: StoreTables) -> Reading:
    events, streams = tables.beside["events"], tables.beside["streams"]
    data, metadata = events.payload("data", "v"), events.payload("metadata", "v")

    def columns(global_seq: str, stream_seq: str) -> EventColumns:
        return EventColumns(
            global_seq=global_seq,
            stream_id="s.stream_uuid",
            stream_seq=stream_seq,
            event_type="v.event_type",
            data=data,
            metadata=metadata,
            created_at="v.created_at",
            event_id="r.event_id",
        )

    event = f"JOIN {events.quoted} v ON v.event_id = r.event_id"
    return Reading(
        columns("r.stream_version", "r.original_stream_version"),
        joins=f"{event} LEFT JOIN {streams.quoted} s ON s.stream_id = r.original_stream_id",
        where="r.stream_id = 0",
        keys=Made(("r.stream_id",), (f"(SELECT k.stream_id FROM {streams.quoted} k WHERE k.stream_uuid = {ID})",)),
        in_stream=Reading(
            columns("g.stream_version", "r.stream_version"),
            joins=f"{event} JOIN {tables.events.quoted} g ON g.event_id = r.event_id AND g.stream_id = 0 "
            f"JOIN {streams.quoted} s ON s.stream_id = r.stream_id",
        ),
        # A stream of links has no events of its own; its first row tells.
        names=Names(
            streams,
            "stream_uuid",
            f"r.stream_id <> 0 AND (SELECT o.original_stream_id = o.stream_id FROM {tables.events.quoted} o "
            "WHERE o.stream_id = r.stream_id ORDER BY o.stream_version LIMIT 1)",
            listed="true",
            once=True,
        ),
        correlation=id_column(events, "correlation_id", "v"),
        causation=id_column(events, "causation_id", "v"),
    )


def _subscriptions(tables: StoreTables, _table: StoreTable) -> CheckpointColumns:
    version = f"SELECT k.stream_version FROM {tables.beside['streams'].quoted} k WHERE k.stream_uuid = c.stream_uuid"
    place = f"concat(c.last_seen, ' of ', ({version}), ' in ', c.stream_uuid)"
    return CheckpointColumns(
        "c.subscription_name",
        "CASE WHEN c.stream_uuid = '$all' THEN c.last_seen END",
        at=f"CASE WHEN c.stream_uuid <> '$all' THEN {place} END",
    )


def _locked(tables: StoreTables, old: float) -> str:
    # Who changes or locks a row leaves the id of the transaction in it.
    streams = tables.beside["streams"]
    return f"""
        SELECT {HOLDER}, (SELECT count(*) FROM pg_locks w WHERE NOT w.granted AND (w.transactionid = s.xmax
                            OR w.locktype = 'tuple' AND w.relation = {streams.oid})) AS waiting
        FROM {streams.quoted} s JOIN {SESSIONS} ON a.xid = s.xmax
        WHERE s.stream_id = 0 AND a.since < clock_timestamp() - make_interval(secs => {old})
    """


def _all_behind(tables: StoreTables, _old: float) -> str:
    return f"""
        SELECT s.stream_version AS version, last.stream_version AS last
        FROM {tables.beside["streams"].quoted} s
        CROSS JOIN LATERAL (SELECT e.stream_version FROM {tables.events.quoted} e WHERE e.stream_id = 0
                            ORDER BY e.stream_version DESC LIMIT 1) last
        WHERE s.stream_id = 0 AND s.stream_version < last.stream_version
    """


KIND = StoreKind(
    "commanded",
    "commanded EventStore",
    has=("event_id", "stream_id", "stream_version", "original_stream_id", "original_stream_version"),
    beside={
        "streams": ("stream_id", "stream_uuid", "stream_version"),
        "events": ("event_id", "event_type", "causation_id", "correlation_id", "data", "metadata", "created_at"),
    },
    reading=_reading,
    first=1,
    counted="events",
    checkpoints=(Checkpoints(("subscription_name", "stream_uuid", "last_seen"), _subscriptions),),
    checks=(
        StoreCheck(
            "all-stream-lock",
            "warning",
            "{who} has changed or locked the row of $all: each append waits until it ends; waiting now: {waiting}",
            "no old transaction holds the row of $all, which each append changes",
            _locked,
        ),
        StoreCheck(
            "all-stream-version",
            "error",
            "stream $all is at version {version}, but has events up to {last}: appends fail",
            "the version of stream $all is that of its last event or above",
            _all_behind,
        ),
    ),
)

"""Message DB. Source: message-db/message-db, database/tables/messages.sql."""

import re

from esx.layouts.foreign.kind import CheckpointColumns, Checkpoints, EventColumns, Reading, StoreCheck, StoreKind
from esx.layouts.foreign.tables import UTC, StoreTable, StoreTables

_CATEGORY = re.compile(r"\bcategory\(\(?stream_name\b")
# What Eventide writes comes last: it has the id of a correlation in the name of the stream where it began.
_CORRELATION = ("correlationId", "traceId", "correlation_id", "correlationStreamName")
_CAUSATION = ("causationMessageGlobalPosition", "causationId", "causation_id")
_MOST_CATEGORIES = 2_000
_MOST_MESSAGES = 5_000


def _reading(tables: StoreTables) -> Reading:
    return Reading(
        EventColumns(
            global_seq="r.global_position",
            stream_id="r.stream_name",
            stream_seq="r.position",
            event_type="r.type",
            data=tables.events.payload("data"),
            metadata=tables.events.payload("metadata"),
            created_at=UTC.format("r.time"),
            event_id="r.id",
        ),
        causes_numbered=True,
    )


def _positions(tables: StoreTables, table: StoreTable) -> CheckpointColumns | str | None:
    if table.oid != tables.events.oid:
        return None
    # A consumer writes its position as a message into a stream CATEGORY:position-CONSUMER. These categories are found
    # along the index on the category, from one to the next.
    category = next((each for each in tables.indexed if _CATEGORY.search(each)), None)
    if category is None:
        return "positions of consumers are in streams CATEGORY:position-CONSUMER: no index on the category finds them"
    messages = table.quoted
    return CheckpointColumns(
        "c.stream_name",
        "c.data ->> 'position'",
        updated_at="c.time",
        needed=("stream_name", "position", "global_position", "data", "time"),
        rows=f"""
            WITH RECURSIVE categories (category, n) AS (
                (SELECT {category}, 1 FROM {messages} ORDER BY 1 LIMIT 1)
                UNION ALL
                SELECT (SELECT {category} FROM {messages} WHERE {category} > k.category ORDER BY 1 LIMIT 1), k.n + 1
                FROM categories k WHERE k.category IS NOT NULL AND k.n < {_MOST_CATEGORIES})
            SELECT last.* FROM categories k CROSS JOIN LATERAL (
                SELECT DISTINCT ON (stream_name) stream_name, data, time FROM (
                    SELECT stream_name, position, data, time FROM {messages} WHERE {category} = k.category
                    ORDER BY global_position DESC LIMIT {_MOST_MESSAGES}) newest
                ORDER BY stream_name, position DESC) last
            WHERE k.category ~ '[:+]position$'
            UNION ALL SELECT NULL, NULL, NULL FROM categories k WHERE k.n = {_MOST_CATEGORIES}""",
        cut=f"only the first {_MOST_CATEGORIES:,} categories are searched for positions of consumers",
    )


def _propulsion(_tables: StoreTables, _table: StoreTable) -> CheckpointColumns:
    return CheckpointColumns("concat_ws(' ', c.consumer_group, c.source, c.tranche)", "c.position")


def _at_once(tables: StoreTables, _old: float) -> str:
    # A writer has an advisory lock for its category.
    return f"""
        SELECT categories FROM (
            SELECT count(DISTINCT (a.classid, a.objid)) AS categories
            FROM pg_locks a JOIN pg_locks l ON l.virtualtransaction = a.virtualtransaction
            WHERE a.locktype = 'advisory' AND a.objsubid = 1 AND a.granted AND l.relation = {tables.events.oid}
              AND l.mode = 'RowExclusiveLock' AND l.granted
              AND a.database = (SELECT oid FROM pg_database WHERE datname = current_database())) c
        WHERE categories > 1
    """


KIND = StoreKind(
    "messagedb",
    "Message DB",
    has=("global_position", "position", "time", "stream_name", "type", "data", "metadata", "id"),
    reading=_reading,
    checkpoints=(
        Checkpoints(("stream_name", "global_position", "data"), _positions),
        Checkpoints(("source", "tranche", "consumer_group", "position"), _propulsion),
    ),
    checks=(
        StoreCheck(
            "category-order",
            "info",
            "{categories} categories are written to now: their numbers can become visible out of order, and a reader "
            "of all categories must wait for open writers, as the feed of esx does",
            "only within a category is the order sure; no two are written to at this moment",
            _at_once,
        ),
    ),
    correlation=_CORRELATION,
    causation=_CAUSATION,
)

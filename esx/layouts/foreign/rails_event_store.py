"""Rails Event Store. Source: RailsEventStore/rails_event_store, create_event_store_events_template.erb.

A table of links has the events of each stream. An event's own stream is that of its first link, those called $by_ left
out, as the tool makes these itself; an event without a link is in no stream. A link has a position if the publisher
expected a version, else NULL; the order in a stream is that of the links' ids. So the events of a stream in which a
link has no position are numbered by these ids.
"""

from esx.layouts.foreign.kind import HOLDER, SESSIONS, EventColumns, Names, Reading, StoreCheck, StoreKind
from esx.layouts.foreign.tables import StoreTables
from esx.layouts.stream_keys import ID, Made

_OURS = "NOT pg_catalog.starts_with({}.stream, '$by_')"


def _reading(tables: StoreTables) -> Reading:
    events, links = tables.events, tables.beside["*_in_streams"]
    # Not by EXISTS: PostgreSQL would look for all links without a position, of all streams, for each page.
    by_id = f"coalesce((SELECT true FROM {links.quoted} n WHERE n.stream = {ID} AND n.position IS NULL LIMIT 1), false)"

    def columns(event: str, stream_id: str, stream_seq: str) -> EventColumns:
        return EventColumns(
            global_seq=f"{event}.id",
            stream_id=stream_id,
            stream_seq=stream_seq,
            event_type=f"{event}.event_type",
            data=events.payload("data", event),
            metadata=events.payload("metadata", event),
            created_at=events.moment("created_at", event),
            event_id=f"{event}.event_id",
        )

    def earlier(link: str) -> str:
        of_event = f"o.event_id = {link}.event_id AND o.id < {link}.id"
        return f"SELECT FROM {links.quoted} o WHERE {of_event} AND {_OURS.format('o')}"

    home = f"{links.quoted} h WHERE h.event_id = r.event_id AND {_OURS.format('h')}"
    if "event_id" in links.leading:
        # Half as long again in a feed as to look for earlier ones, but without the index it would read all for each.
        joins = f"LEFT JOIN LATERAL (SELECT h.stream, h.id, h.position FROM {home} ORDER BY h.id LIMIT 1) h ON true"
    else:
        joins = f"LEFT JOIN {home.replace('WHERE', 'ON')} AND NOT EXISTS ({earlier('h')})"
    return Reading(
        # A link without a position needs no look at the others of its stream.
        columns(
            "r",
            "h.stream",
            f"CASE WHEN h.position IS NULL OR {by_id.replace(ID, 'h.stream')} THEN h.id ELSE h.position END",
        ),
        joins=joins,
        keys=Made(("r.stream", "r.by_id"), (ID, by_id)),
        in_stream=Reading(
            columns("v", "r.stream", "r.seq"),
            table=links,
            rows=f"(SELECT l.event_id, l.stream, l.position::bigint AS seq, false AS by_id FROM {links.quoted} l "
            f"UNION ALL SELECT l.event_id, l.stream, l.id, true FROM {links.quoted} l)",
            joins=f"JOIN {events.quoted} v ON v.event_id = r.event_id",
        ),
        names=Names(
            links,
            "stream",
            # A stream whose first event has another home is one of links.
            listed=f"(SELECT NOT EXISTS ({earlier('f')}) FROM {links.quoted} f "
            f"WHERE f.stream = {ID} ORDER BY f.id LIMIT 1)",
            hidden="$by_",
        ),
        separator="$",
    )


def _not_linear(tables: StoreTables, _old: float) -> str:
    return f"""
        SELECT {HOLDER} FROM pg_locks l JOIN {SESSIONS} ON a.pid = l.pid
        WHERE l.relation = {tables.events.oid} AND l.mode = 'RowExclusiveLock' AND l.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND NOT EXISTS (SELECT FROM pg_locks o WHERE o.pid = l.pid AND o.locktype = 'advisory' AND o.granted) LIMIT 3
    """


KIND = StoreKind(
    "rails_event_store",
    "Rails Event Store",
    has=("id", "event_id", "event_type", "metadata", "data", "created_at"),
    lacks=("stream_id", "aggregate_id"),
    beside={"*_in_streams": ("id", "stream", "position", "event_id", "created_at")},
    reading=_reading,
    placed=False,
    checks=(
        StoreCheck(
            "linearized-writes",
            "info",
            "{who} appends without the lock of PgLinearizedEventRepository: ids can become visible out of order, and a "
            "reader that goes by them must wait for open writers, as the feed of esx does",
            "no writer is seen now that appends without the lock of PgLinearizedEventRepository",
            _not_linear,
        ),
    ),
)

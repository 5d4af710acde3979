"""The status of consumers, as `EventStore.consumers` and `EventStore.projections` return it."""

from typing import Any, NamedTuple

from esx.layouts.layout import Layout
from esx.postgres.session import Session
from esx.store.consume.checkpoints import lock_class, usable_table
from esx.store.consume.report import COUNTED, ConsumerReport, ProjectionOwner, Runner
from esx.store.feed.batch import Writer
from esx.store.feed.comparison import compare_kept
from esx.store.feed.server import Here, look
from esx.store.feed.writers import read_writers

_RATE_FOR = "30 seconds"
SEEN_FOR = 30.0
"""For how many seconds an instance without a lease counts as there after it was seen last."""


class Rows(NamedTuple):
    """Where the rows of consumers are, as SQL, and what they have, which depends on the version of the schema."""

    table: str
    columns: frozenset[str]
    parked: bool
    """Whether this user may read which events were put aside."""

    @property
    def of_version_3(self) -> bool:
        """Whether it is kept who runs a consumer, and what it puts aside."""
        return "filter" in self.columns


async def find_rows(connection: Session, layout: Layout, *, everything: bool) -> Rows:
    """Return where the rows are: those of projections, or with `everything` those of all consumers."""
    names = ["consumers", "projections"] if everything else ["projections"]
    found = await connection.fetch(
        """
        SELECT name, ARRAY(SELECT attname::text FROM pg_attribute
                           WHERE attrelid = to_regclass(name) AND attnum > 0 AND NOT attisdropped),
               coalesce(has_table_privilege(to_regclass($2), 'SELECT'), false)
        FROM unnest($1::text[]) name WHERE to_regclass(name) IS NOT NULL
        """,
        [layout.ours(name) for name in names],
        layout.ours("parked_events"),
    )
    # Version 1 has projections only.
    by_name = {row[0]: row for row in found}
    row = next((by_name[layout.ours(name)] for name in names if layout.ours(name) in by_name), None)
    if row is None:
        return Rows(layout.ours("projections"), frozenset(), parked=False)
    return Rows(row[0], frozenset(row[1]), parked=row[2])


async def read_status(connection: Session, layout: Layout, *, everything: bool = False) -> list[ConsumerReport]:
    """Return the projections by name, or with `everything` all consumers; costs the same at any size of the store.

    Lag counts events that are visible and not handled. So all visible events behind a gap count for a reader that waits
    at the gap. Dead numbers at the end, from rollbacks and lost races, do not count, though the head includes them.
    """
    await connection.read_views()  # projections is one
    with usable_table():
        rows = await connection.fetch(_status_sql(layout, await find_rows(connection, layout, everything=everything)))
    here = await look(connection, layout)
    writers = await read_writers(connection, layout) if any(row["gap"] for row in rows) else ()
    return [await _consumer(connection, layout, here, row, writers) for row in rows]


async def _consumer(
    connection: Session, layout: Layout, here: Here, row: Any, writers: tuple[Writer, ...]
) -> ConsumerReport:
    owner = None
    if row["owner"] is not None:
        owner = ProjectionOwner(row["owner"], row["application_name"], row["client"], row["backend_start"])
    runner = _runner(row, owner)
    return ConsumerReport(
        name=row["name"],
        position=row["position"],
        head=row["head"],
        lag=row["counted"] if row["counted"] <= COUNTED else max(row["last"] - row["position"], row["counted"]),
        lag_seconds=None if row["seconds"] is None else max(row["seconds"], 0.0),
        paused=row["paused"],
        owner=owner,
        held_by=writers if row["gap"] else (),
        last_error=row["last_error"],
        updated_at=row["updated_at"],
        difference=await compare_kept(connection, layout, here, row["history"], row["position"]),
        kind=row["kind"],
        runner=runner,
        error_seq=None if row["last_error"] is None else row["error_seq"],
        failed_at=None if row["last_error"] is None else row["failed_at"],
        rate=0.0 if runner is None else row["rate"],
        parked=row["parked"],
        skipped=row["skipped"],
        start=row["start"],
    )


def _runner(row: Any, owner: ProjectionOwner | None) -> Runner | None:
    if owner is not None and owner.pid != row["backend"]:
        return Runner(owner.client, None, owner.since, owner.pid)  # an older esx, which does not say who it is
    if owner is not None or row["seen"]:
        return Runner(row["host"], row["pid"], row["since"], None if owner is None else owner.pid)
    return None


_KEPT_SINCE_3 = f"""
    p.error_seq, p.failed_at, p.host, p.pid, p.since, p.backend, p.start,
    CASE WHEN p.updated_at > clock_timestamp() - interval '{_RATE_FOR}' THEN p.rate ELSE 0 END::float8 AS rate,
    coalesce(p.backend IS NULL AND p.seen_at > clock_timestamp() - interval '{SEEN_FOR} seconds', false) AS seen
"""
_NOT_KEPT = """
    NULL::bigint AS error_seq, NULL::timestamptz AS failed_at, NULL AS host, NULL::int AS pid,
    NULL::timestamptz AS since, NULL::int AS backend, 0::bigint AS start, 0::float8 AS rate, false AS seen
"""


def _status_sql(layout: Layout, rows: Rows) -> str:
    table = layout.table
    # A text, a number and infinity have no age.
    age = "CASE WHEN next.global_seq IS NULL THEN 0 END"
    if layout.timed:
        age = (
            "CASE WHEN next.global_seq IS NULL THEN 0 WHEN isfinite(next.created_at) "
            "THEN extract(epoch FROM clock_timestamp() - next.created_at) END"
        )
    aside = "SELECT NULL::bigint AS parked, NULL::bigint AS skipped"
    if rows.of_version_3 and rows.parked:
        aside = f"""
            SELECT count(*) FILTER (WHERE state <> 'skipped') AS parked,
                   count(*) FILTER (WHERE state = 'skipped') AS skipped
            FROM (SELECT a.state FROM {layout.ours("parked_events")} a WHERE a.consumer = p.name
                  LIMIT {COUNTED + 1}) few
        """
    return f"""
        SELECT p.name, p.position, p.paused, p.last_error, p.updated_at,
               {"p.kind" if "kind" in rows.columns else "'projection'"} AS kind,
               {"p.history::text" if "history" in rows.columns else "NULL"} AS history,
               {_KEPT_SINCE_3 if rows.of_version_3 else _NOT_KEPT},
               aside.parked, aside.skipped, head.head, head.last, lag.counted,
               {age}::float8 AS seconds,
               coalesce(next.global_seq > p.position + 1, false) AS gap,
               owner.pid AS owner, owner.application_name, owner.client, owner.backend_start
        FROM {rows.table} p
        CROSS JOIN (
            SELECT greatest({layout.head()}, last.global_seq, 0) AS head, last.global_seq AS last
            FROM (SELECT max(global_seq) AS global_seq FROM {table}) last
        ) head
        LEFT JOIN LATERAL (
            SELECT e.global_seq, e.created_at FROM {table} e WHERE e.global_seq > p.position
            ORDER BY e.global_seq LIMIT 1
        ) next ON true
        CROSS JOIN LATERAL (
            SELECT count(*) AS counted FROM (
                SELECT 1 FROM {table} e WHERE e.global_seq > p.position ORDER BY e.global_seq LIMIT {COUNTED + 1}
            ) visible
        ) lag
        CROSS JOIN LATERAL ({aside}) aside
        LEFT JOIN LATERAL (
            SELECT l.pid, a.application_name, host(a.client_addr) AS client, a.backend_start
            FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'advisory' AND l.objsubid = 2
              AND l.classid = {lock_class(layout)}::oid AND l.objid = p.id::oid
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.granted
            LIMIT 1
        ) owner ON true
        ORDER BY p.name
    """

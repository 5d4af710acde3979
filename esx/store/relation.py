"""What is behind the name of a store: a table, a partitioned one, or a view; and whether there is an order to follow.

The order of a feed rests on the locks of whoever writes to the table. Where rows come from somewhere else, no list of
locks tells what may still appear, and then nothing may be called safe.
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

import asyncpg

from esx.store.elsewhere import NEEDED, instead, stores_elsewhere
from esx.store.errors import OrderUnknown, SchemaMissing, StoreNotNamed
from esx.store.family import above, below
from esx.store.layout import Layout
from esx.store.viewrule import Base, table_behind
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

_BYTE_ORDERED = ("C", "POSIX", "ucs_basic", "C.UTF-8")
_KINDS = {"r": "a table", "p": "a partitioned table", "v": "a view", "m": "a materialized view", "f": "a foreign table"}
_TABLES = ("r", "p")
_NAME_LIMIT = 200

# A unique index that is no constraint judges as well, and is named by its violation in the same way. A partition's own
# one, or one with more columns than these, as partitioning may need, judges too.
KEEPS_PLACES = """
    i.indisunique AND i.indpred IS NULL AND 2 = (
        SELECT count(*) FROM pg_attribute a
        WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
          AND a.attname IN ('stream_id', 'stream_seq'))
"""
"""The condition that an index `i` of pg_index keeps two events from one place of a stream."""
# The unique index of a parent keeps nothing unique in the children that inherit from it.
_FACTS = f"""
    SELECT current_database()::text AS database, getdatabaseencoding()::text AS encoding,
           pg_is_in_recovery() AS standby, c.oid, c.relkind::text AS kind,
           n.nspname::text AS schema, c.relname::text AS name,
           quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS quoted,
           pg_get_userbyid(c.relowner)::text AS owner, to_regclass('events')::oid AS plain,
           ARRAY(SELECT a.attname::text FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
           (SELECT co.collname::text FROM pg_attribute a JOIN pg_collation co ON co.oid = a.attcollation
            WHERE a.attrelid = c.oid AND a.attname = 'stream_id') AS collation,
           ARRAY(SELECT ARRAY[xn.nspname::text, x.relname::text]
                 FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace xn ON xn.oid = x.relnamespace
                 WHERE i.indrelid = c.oid AND {KEEPS_PLACES}) AS places,
           EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'event_id'
                   WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                     AND i.indnatts = 1 AND i.indkey[0] = a.attnum)
           AND NOT (c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid))
           AS unique_event_id,
           to_regprocedure('esx_lock_stream(text)') IS NOT NULL
           AND coalesce(has_table_privilege(locks, 'SELECT') AND has_table_privilege(locks, 'INSERT')
                        AND has_table_privilege(locks, 'UPDATE'), false) AS lockable
    FROM (SELECT to_regclass($1)::oid AS oid, to_regclass('stream_locks')::oid AS locks) found
    LEFT JOIN pg_class c ON c.oid = found.oid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
"""
BAD_NAMES = (asyncpg.InvalidNameError, asyncpg.PostgresSyntaxError, asyncpg.FeatureNotSupportedError)
"""What PostgreSQL says to a text that cannot be the name of a table of this database."""


async def detect_layout(connection: asyncpg.Connection, store: str | None = None) -> Layout:
    """Return the layout of the events table, or of the table or view that the user has named as the `store`.

    `store` is a name as SQL writes it, e.g. ``tenant2.events``. Raises SchemaMissing if there is none, or if columns
    are missing that no event can be read without, and StoreNotNamed for a view that the user has not named.
    """
    try:
        row = await connection.fetchrow(_FACTS, "events" if store is None else store)
    except BAD_NAMES:
        row = None
    if row is None:
        raise SchemaMissing(f"{_shown(store)} is no name of a table: write it as SQL does, such as schema.table")
    facts: dict[str, Any] = dict(row)
    called = "events" if store is None else _shown(facts["quoted"] or store)
    if facts["kind"] not in _KINDS:
        raise await _not_there(connection, _missing(store, facts), "" if store else "run `esx init` to create it")
    kind = _KINDS[facts["kind"]]
    if store is None and facts["kind"] not in _TABLES:
        raise StoreNotNamed(
            f"{_about(facts)}: to read it all the same, name it with --store {_shown(quote(facts['quoted']))}"
        )
    missing = [name for name in NEEDED if name not in facts["columns"]]
    if missing:
        raise await _not_there(
            connection,
            f"{kind.split()[-1]} {called} of database {facts['database']} has no column {', '.join(missing)}",
            "esx reads tables made by schema.sql; `esx init` in a database of its own creates one",
        )
    base: Base | None = None
    disordered: str | None = None
    if facts["kind"] == "v":
        behind = await table_behind(connection, facts["oid"])
        base = behind if isinstance(behind, Base) else None
        disordered = None if base is not None else f"{called} is a view, and {behind}: which table's writers matter"
    elif facts["kind"] not in _TABLES:
        disordered = f"{called} is {kind}: who writes what it shows"
    own = facts["plain"] is not None and facts["plain"] in (facts["oid"], base and base.oid)
    return Layout(
        table="events" if store is None else facts["quoted"],
        schema=None if store is None else facts["schema"],
        name=facts["name"],
        kind=facts["kind"],
        base=None if base is None else base.oid,
        base_sequence=None if base is None else base.sequence,
        base_name=None if base is None else base.name,
        own=own,
        places=frozenset((schema, name) for schema, name in facts["places"]),
        event_id="event_id" if "event_id" in facts["columns"] else None,
        byte_order=facts["collation"] in _BYTE_ORDERED,
        lockable=facts["lockable"] and own and facts["kind"] in _TABLES,
        unique_event_id=facts["unique_event_id"],
        standby=facts["standby"],
        encoding=facts["encoding"],
        refuses_appends=None if facts["kind"] in _TABLES else f"{called} is {kind}: esx appends to tables only",
        disordered=disordered and f"{disordered} is not known, so no position is safe: follow the table itself",
        warning=None if facts["kind"] in _TABLES else _about(facts),
    )


async def _not_there(connection: asyncpg.Connection, what: str, remedy: str) -> SchemaMissing:
    """Return the error for a table that is not the store, with the stores that this name and search_path hide."""
    names = await stores_elsewhere(connection)
    if not names:
        return SchemaMissing(f"{what}: {remedy}" if remedy else what)
    error = SchemaMissing(f"{what}, but {instead(names)}")
    error.elsewhere = tuple(names)
    return error


def _missing(store: str | None, facts: Mapping[str, Any]) -> str:
    if store is None:
        return f"database {facts['database']} has no table events"
    if facts["kind"] is not None:
        return f"{_shown(store)} of database {facts['database']} is neither a table nor a view"
    quotes = ', and quote capitals as SQL does: "Name"' if store != store.lower() and '"' not in store else ""
    return f"database {facts['database']} has no table or view {_shown(store)}: name it as schema.table{quotes}"


def _about(facts: Mapping[str, Any]) -> str:
    """Return what is not a table, whose it is, and what it means to read it."""
    what = f"{_shown(facts['quoted'])} is {_KINDS[facts['kind']]} of user {_shown(facts['owner'])}"
    if facts["kind"] == "m":
        return f"{what}, which shows what was there when it was last refreshed"
    return f"{what}, and what its owner has put into it runs when it is read"


def _shown(name: str | None) -> str:
    return visible(name or "", limit=_NAME_LIMIT)


async def order_unknown(connection: asyncpg.Connection, layout: Layout) -> str | None:
    """Return why no position of this table can be called safe, in one line with what to do; None if that can be told.

    It looks anew each time, in one round trip for a table: a subscription or a partition may have come since.
    """
    if layout.disordered is not None:
        return layout.disordered
    called = _shown(layout.table)
    if layout.kind == "v":
        behind = await table_behind(connection, await connection.fetchval(f"SELECT {layout.oid}::oid"))
        if not isinstance(behind, Base) or behind.oid != layout.base:
            return f"view {called} has been changed and reads something else: connect again"
    start = f"SELECT {layout.base_oid}::oid"
    row = await connection.fetchrow(
        f"""
        WITH RECURSIVE {above(start)}, {below(start)}
        SELECT (SELECT string_agg(DISTINCT coalesce(s.subname::text, r.srsubid::text), ', ')
                FROM pg_subscription_rel r LEFT JOIN pg_stat_subscription s ON s.subid = r.srsubid
                WHERE r.srrelid IN (SELECT oid FROM above UNION ALL SELECT oid FROM below)),
               (SELECT min(c.oid::regclass::text) FROM below JOIN pg_class c ON c.oid = below.oid
                WHERE c.relkind = 'f')
        """
    )
    assert row is not None
    subscription, foreign = row
    if subscription is not None:
        return (
            f"{called} is filled by logical replication (subscription {_shown(subscription)}): events arrive in the "
            "order of their commits, under the numbers of the publisher, so no position is safe: follow the publisher"
        )
    if foreign is not None:
        return (
            f"partition {_shown(foreign)} of {called} is a foreign table: who writes there is not visible, so no "
            "position is safe: follow its own server"
        )
    return None


async def check_order(connection: asyncpg.Connection, layout: Layout) -> None:
    """Raise OrderUnknown if no position of this table can be called safe."""
    reason = await order_unknown(connection, layout)
    if reason is not None:
        raise OrderUnknown(reason)


async def all_places(connection: asyncpg.Connection, layout: Layout) -> frozenset[tuple[str, str]]:
    """Return the unique indexes, as (schema, name), that keep places of streams: of the table and all its partitions.

    A violation names the index of the partition where it happened.
    """
    rows = await connection.fetch(
        f"""
        WITH RECURSIVE {below(f"SELECT {layout.oid}::oid")}
        SELECT n.nspname::text, x.relname::text
        FROM below JOIN pg_index i ON i.indrelid = below.oid
        JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace WHERE {KEEPS_PLACES}
        """
    )
    return frozenset((schema, name) for schema, name in rows)

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
from esx.store.strange import OPERATORS, Strange
from esx.store.viewrule import Base, table_behind
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
           pg_get_userbyid(c.relowner)::text AS owner, found.plain, found.home,
           ARRAY(SELECT a.attname::text FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
           EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'
                     AND t.tgtype & 5 = 4) AS for_statements,  -- INSERT, and not FOR EACH ROW
           EXISTS (SELECT FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
                   WHERE a.attrelid = c.oid AND a.attname = ANY ($3::text[]) AND NOT a.attisdropped
                     AND y.typnamespace <> 'pg_catalog'::regnamespace) AS strange,
           (SELECT co.collname::text FROM pg_attribute a JOIN pg_collation co ON co.oid = a.attcollation
            WHERE a.attrelid = c.oid AND a.attname = 'stream_id') AS collation,
           (SELECT a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attname = 'created_at') AS timed,
           ARRAY(SELECT ARRAY[xn.nspname::text, x.relname::text]
                 FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace xn ON xn.oid = x.relnamespace
                 WHERE i.indrelid = c.oid AND {KEEPS_PLACES}) AS places,
           EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'event_id'
                   WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                     AND i.indnatts = 1 AND i.indkey[0] = a.attnum)
           AND NOT (c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid))
           AS unique_event_id,
           to_regprocedure(found.home || '.esx_lock_stream(text)') IS NOT NULL
           AND coalesce(has_table_privilege(locks, 'SELECT') AND has_table_privilege(locks, 'INSERT')
                        AND has_table_privilege(locks, 'UPDATE'), false) AS lockable
    FROM (SELECT $1::oid AS oid, $2::oid AS plain, home, to_regclass(home || '.stream_locks')::oid AS locks
          FROM (SELECT (SELECT quote_ident(n.nspname) FROM pg_class p JOIN pg_namespace n ON n.oid = p.relnamespace
                        WHERE p.oid = $2) AS home) h) found
    LEFT JOIN pg_class c ON c.oid = found.oid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
"""
BAD_NAMES = (asyncpg.InvalidNameError, asyncpg.PostgresSyntaxError, asyncpg.FeatureNotSupportedError)
"""What PostgreSQL says to a text that cannot be the name of a table of this database."""


async def find_tables(connection: asyncpg.Connection, *names: str) -> list[int | None]:
    """Return the oids of what has these names, as SQL writes them, for the user, None where there is nothing.

    Raises one of `BAD_NAMES` for what is no name. Nothing but these is looked up in the user's search_path.
    """
    found = ["pg_catalog.to_regclass(${}::text)::pg_catalog.oid" for _ in names]
    return await _as_the_user(connection, found, *names)


async def find_home(connection: asyncpg.Connection) -> tuple[str, int | None]:
    """Return the schema where the user finds the objects of schema.sql, or would make them; and the oid of events."""
    [events] = await find_tables(connection, "events")
    schema: str | None = await connection.fetchval(
        "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1", events
    )
    if schema is None:
        [schema] = await _as_the_user(connection, ["pg_catalog.current_schema()::pg_catalog.text"])
    return schema or "public", events


async def _as_the_user(connection: asyncpg.Connection, expressions: Sequence[str], *arguments: str) -> list[Any]:
    """Return what the expressions come to, each with a ``{}`` for the number of its argument, in the user's path."""
    first = 1
    path = "true"
    back = ""
    if getattr(connection, "guarded", False):
        first, path = 2, "pg_catalog.set_config('search_path', $1::text, true) IS NOT NULL"
        # The setting lasts for the transaction, and there may be one.
        back = ", pg_catalog.set_config('search_path', '', true)"
        arguments = (connection.path, *arguments)  # type: ignore[attr-defined]
    columns = ", ".join(
        f"CASE WHEN {path} THEN {expression.format(place)} END" for place, expression in enumerate(expressions, first)
    )
    row = await connection.fetchrow(f"SELECT {columns}{back}", *arguments)
    assert row is not None
    return list(row)[: len(expressions)]


async def detect_layout(connection: asyncpg.Connection, store: str | None = None) -> Layout:
    """Return the layout of the events table, or of the table or view that the user has named as the `store`.

    `store` is a name as SQL writes it, e.g. ``tenant2.events``. Raises SchemaMissing if there is none, or if columns
    are missing that no event can be read without, and StoreNotNamed for a view that the user has not named.
    """
    try:
        found, plain = await find_tables(connection, "events" if store is None else store, "events")
    except BAD_NAMES:
        raise SchemaMissing(
            f"{_shown(store)} is no name of a table: write it as SQL does, such as schema.table"
        ) from None
    row = await connection.fetchrow(_FACTS, found, plain, [*NEEDED, "event_id"])
    assert row is not None
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
    strange = await _strange(connection, facts["oid"], called) if facts["strange"] else ()
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
        table=facts["quoted"],
        called="events" if store is None else facts["quoted"],
        schema=facts["schema"],
        name=facts["name"],
        home=facts["home"],
        kind=facts["kind"],
        base=None if base is None else base.oid,
        base_sequence=None if base is None else base.sequence,
        base_name=None if base is None else base.name,
        own=own,
        places=frozenset((schema, name) for schema, name in facts["places"]),
        event_id="event_id" if "event_id" in facts["columns"] else None,
        byte_order=facts["collation"] in _BYTE_ORDERED and "stream_id" not in {each.column for each in strange},
        strange=strange,
        for_statements=facts["for_statements"],
        lockable=facts["lockable"] and own and facts["kind"] in _TABLES,
        unique_event_id=facts["unique_event_id"],
        timed=facts["timed"],
        standby=facts["standby"],
        encoding=facts["encoding"],
        refuses_appends=None if facts["kind"] in _TABLES else f"{called} is {kind}: esx appends to tables only",
        disordered=disordered and f"{disordered} is not known, so no position is safe: follow the table itself",
        warning=None if facts["kind"] in _TABLES else _about(facts),
    )


async def _strange(connection: asyncpg.Connection, table: int, called: str) -> tuple[Strange, ...]:
    """Return the columns of types that are none of PostgreSQL's own, with the operators that their indexes go by.

    Raises SchemaMissing for a type that is not known to compare and to read as a text does.
    """
    rows = await connection.fetch(
        """
        -- A domain compares as what it is made of.
        WITH RECURSIVE types (name, oid) AS (
            SELECT a.attname::text, a.atttypid FROM pg_attribute a
            WHERE a.attrelid = $1 AND a.attname = ANY ($2::text[]) AND NOT a.attisdropped
            UNION ALL SELECT t.name, y.typbasetype FROM types t JOIN pg_type y ON y.oid = t.oid WHERE y.typtype = 'd')
        SELECT t.name, t.oid::regtype::text, CASE WHEN y.typcategory = 'S' THEN ARRAY(
            SELECT quote_ident(n.nspname) || '.' || o.oprname
            FROM pg_opclass oc JOIN pg_am am ON am.oid = oc.opcmethod AND am.amname = 'btree'
            JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = t.oid AND ao.amoprighttype = t.oid
            JOIN pg_operator o ON o.oid = ao.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
            WHERE oc.opcdefault AND oc.opcintype = t.oid AND ao.amoppurpose = 's' ORDER BY ao.amopstrategy) END
        FROM types t JOIN pg_type y ON y.oid = t.oid
        WHERE y.typtype <> 'd' AND y.typnamespace <> 'pg_catalog'::regnamespace ORDER BY t.name
        """,
        table,
        [*NEEDED, "event_id"],
    )
    for name, kind, operators in rows:
        if name not in ("stream_id", "event_type") or len(operators or ()) != len(OPERATORS):
            raise SchemaMissing(
                f"table {called}: {_shown(name)} is of type {_shown(kind)}, which is none of PostgreSQL's own, and how "
                "its values compare is not known: read a view that casts it, by --store"
            )
    return tuple(Strange(name, kind, tuple(operators)) for name, kind, operators in rows)


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
    called = _shown(layout.called)
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

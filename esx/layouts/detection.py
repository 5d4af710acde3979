"""Finds what the name of a store is: a table, a partitioned table or a view; and whether a feed can have an order.

The order of a feed relies on the locks of the writers of the table. If rows come from elsewhere, the locks do not show
which events may still appear, and no position is safe.
"""

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

import asyncpg

from esx.errors import OrderUnknown, SchemaMissing, StoreNotNamed
from esx.layouts.candidates import NEEDED, find_candidates, instead
from esx.layouts.foreign.kinds import KINDS
from esx.layouts.foreign.opening import find_foreign, open_own
from esx.layouts.foreign.own import OwnKind
from esx.layouts.foreign.recognition import absent
from esx.layouts.layout import BYTE_ORDERED, Layout
from esx.layouts.operators import OPERATORS, CustomColumn
from esx.layouts.table_tree import above, below
from esx.layouts.view_definition import ViewedTable, table_behind
from esx.text import visible

_KINDS = {"r": "a table", "p": "a partitioned table", "v": "a view", "m": "a materialized view", "f": "a foreign table"}
_TABLES = ("r", "p")
_NAME_LIMIT = 200

# A unique index without a constraint decides too, and its violation names it in the same way. So does the index of a
# partition, or one with more columns, as partitioning may need.
KEEPS_PLACES = """
    i.indisunique AND i.indpred IS NULL AND 2 = (
        SELECT count(*) FROM pg_attribute a
        WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
          AND a.attname IN ('stream_id', 'stream_seq'))
"""
"""The condition that an index `i` of pg_index keeps two events from one place of a stream."""
# The unique index of a parent does not cover the children that inherit from it.
_FACTS = f"""
    WITH RECURSIVE {below("SELECT $1::oid")}
    SELECT current_database()::text AS database, getdatabaseencoding()::text AS encoding,
           pg_is_in_recovery() AS standby, c.oid, c.relkind::text AS kind,
           n.nspname::text AS schema, c.relname::text AS name,
           quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS quoted,
           pg_get_userbyid(c.relowner)::text AS owner, found.plain, found.home,
           ARRAY(SELECT a.attname::text FROM pg_attribute a  -- the name of another may be no text
                 WHERE a.attrelid = c.oid AND a.attname = ANY ($3::text[]) AND NOT a.attisdropped) AS columns,
           EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'
                     AND t.tgtype & 5 = 4) AS for_statements,  -- INSERT, and not FOR EACH ROW
           EXISTS (SELECT FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
                   WHERE a.attrelid = c.oid AND a.attname = ANY ($3::text[]) AND NOT a.attisdropped
                     AND y.typnamespace <> 'pg_catalog'::regnamespace) AS custom,
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
                        AND has_table_privilege(locks, 'UPDATE'), false) AS lockable,
           EXISTS (SELECT FROM below JOIN pg_class part ON part.oid = below.oid WHERE part.relkind = 'f') AS foreign
    FROM (SELECT $1::oid AS oid, $2::oid AS plain, home, to_regclass(home || '.stream_locks')::oid AS locks
          FROM (SELECT (SELECT quote_ident(n.nspname) FROM pg_class p JOIN pg_namespace n ON n.oid = p.relnamespace
                        WHERE p.oid = $2) AS home) h) found
    LEFT JOIN pg_class c ON c.oid = found.oid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
"""
_NAMED = 3
BAD_NAMES = (asyncpg.InvalidNameError, asyncpg.PostgresSyntaxError, asyncpg.FeatureNotSupportedError)
"""PostgreSQL's errors for a text that cannot be the name of a table of this database."""


async def find_tables(connection: asyncpg.Connection, *names: str) -> list[int | None]:
    """Return the oids of the relations with these names, as SQL writes them, in the user's search_path; None for none.

    Raises one of `BAD_NAMES` for a text that is no name.
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
    """Return the values of expressions in the user's search_path; a ``{}`` in each is the number of its argument."""
    first = 1
    path = "true"
    back = ""
    if getattr(connection, "guarded", False):
        first, path = 2, "pg_catalog.set_config('search_path', $1::text, true) IS NOT NULL"
        # Undo it here, as it lasts until the end of a transaction around it.
        back = ", pg_catalog.set_config('search_path', '', true)"
        arguments = (connection.path, *arguments)  # type: ignore[attr-defined]
    columns = ", ".join(
        f"CASE WHEN {path} THEN {expression.format(place)} END" for place, expression in enumerate(expressions, first)
    )
    row = await connection.fetchrow(f"SELECT {columns}{back}", *arguments)
    assert row is not None
    return list(row)[: len(expressions)]


async def detect_layout(
    connection: asyncpg.Connection, store: str | None = None, kinds: Sequence[OwnKind] = ()
) -> Layout:
    """Return the layout of the events table, or of the table or view that the user has named as the `store`.

    `store` is a name as SQL writes it, such as ``tenant2.events``, or that of one of the `kinds` that the config file
    describes. Raises SchemaMissing without a table, or without a column that is necessary to read an event, and
    StoreNotNamed for a view that the user has not named.
    """
    for described in kinds:
        if described.name == store:
            return await open_own(connection, described)
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
    missing = [name for name in NEEDED if name not in facts["columns"]]
    if missing and (foreign := await find_foreign(connection, store, facts["oid"], kinds)) is not None:
        return foreign
    if facts["kind"] not in _KINDS:
        what, remedy = _missing(store, facts), "" if store else "run `esx init` to create it"
        if store is None and (absent_layouts := await absent(connection, kinds)):
            what += f", and {'; '.join(absent_layouts[:_NAMED])}"
            remedy = "correct the layout, or run `esx init` to create the table events"
        raise await _not_there(connection, what, remedy)
    kind = _KINDS[facts["kind"]]
    if store is None and facts["kind"] not in _TABLES:
        raise StoreNotNamed(
            f"{_about(facts)}: to read it all the same, name it with --store {_shown(quote(facts['quoted']))}"
        )
    if missing:
        raise await _not_there(
            connection,
            f"{kind.split()[-1]} {called} of database {facts['database']} has no column {', '.join(missing)}",
            "esx reads tables made by schema.sql; `esx init` in a database of its own creates one",
        )
    custom = await _custom_columns(connection, facts["oid"], called) if facts["custom"] else ()
    base: ViewedTable | None = None
    disordered: str | None = None
    if facts["kind"] == "v":
        behind = await table_behind(connection, facts["oid"])
        base = behind if isinstance(behind, ViewedTable) else None
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
        byte_order=facts["collation"] in BYTE_ORDERED and "stream_id" not in {each.column for each in custom},
        custom_columns=custom,
        for_statements=facts["for_statements"],
        lockable=facts["lockable"] and own and facts["kind"] in _TABLES,
        unique_event_id=facts["unique_event_id"],
        timed=facts["timed"],
        standby=facts["standby"],
        encoding=facts["encoding"],
        restricted="" if facts["kind"] not in _TABLES else "view" if facts["foreign"] else "view, foreign-table",
        refuses_appends=None if facts["kind"] in _TABLES else f"{called} is {kind}: esx appends to tables only",
        disordered=disordered and f"{disordered} is not known, so no position is safe: follow the table itself",
        warning=None if facts["kind"] in _TABLES else _about(facts),
    )


async def _custom_columns(connection: asyncpg.Connection, table: int, called: str) -> tuple[CustomColumn, ...]:
    """Return the columns whose types are not PostgreSQL's own, with the operators that their indexes use.

    Raises SchemaMissing for a type that may not compare and read like a text.
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
    return tuple(CustomColumn(name, kind, tuple(operators)) for name, kind, operators in rows)


async def _not_there(connection: asyncpg.Connection, what: str, remedy: str) -> SchemaMissing:
    """Return the error for a missing store, with the names of other stores in the database."""
    names = await find_candidates(connection)
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
    kind = next((each for each in KINDS if each.name == store), None)
    if kind is not None:
        return f"database {facts['database']} has no store of {kind.title}"
    quotes = ', and quote capitals as SQL does: "Name"' if store != store.lower() and '"' not in store else ""
    return f"database {facts['database']} has no table or view {_shown(store)}: name it as schema.table{quotes}"


def _about(facts: Mapping[str, Any]) -> str:
    """Return a line about a view: its owner, and what reading it means."""
    what = f"{_shown(facts['quoted'])} is {_KINDS[facts['kind']]} of user {_shown(facts['owner'])}"
    if facts["kind"] == "m":
        return f"{what}, which shows what was there when it was last refreshed"
    return f"{what}, and what its owner has put into it runs when it is read"


def _shown(name: str | None) -> str:
    return visible(name or "", limit=_NAME_LIMIT)


async def order_unknown(connection: asyncpg.Connection, layout: Layout) -> str | None:
    """Return in one line why no position of this table is safe, with the remedy; None if there are safe positions.

    It looks again each time, in one round trip for a table, as there may be a new subscription or partition.
    """
    if layout.disordered is not None:
        return layout.disordered
    called = _shown(layout.called)
    if layout.kind == "v":
        behind = await table_behind(connection, await connection.fetchval(f"SELECT {layout.oid}::oid"))
        if not isinstance(behind, ViewedTable) or behind.oid != layout.base:
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
    """Raise OrderUnknown if no position of this table is safe."""
    reason = await order_unknown(connection, layout)
    if reason is not None:
        raise OrderUnknown(reason)


async def all_places(connection: asyncpg.Connection, layout: Layout) -> frozenset[tuple[str, str]]:
    """Return the unique indexes of places in streams, as (schema, name), of the table and all its partitions.

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

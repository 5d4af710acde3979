"""Opening a store of another tool: its layout."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import asyncpg

from esx.errors import SchemaMissing
from esx.layouts.foreign.kind import NO_ID, NO_STREAM, NO_TIME, Foreign, Reading, stored
from esx.layouts.foreign.own import OwnKind
from esx.layouts.foreign.recognition import (
    OWN,
    FoundStore,
    fits,
    read_near,
    read_own,
    read_stores,
    read_tables,
    with_beside,
)
from esx.layouts.foreign.source import numbers, source
from esx.layouts.foreign.tables import StoreTables
from esx.layouts.layout import BYTE_ORDERED, Layout
from esx.layouts.stream_keys import Joined
from esx.postgres.driver_errors import told
from esx.postgres.values import fetch
from esx.text import visible

_CHECKED, _CHECKS_VALUES = "pg_input_is_valid", 160_000
"""The function by which a value that is none hides no others, and the version from which on PostgreSQL has it."""
# Where a column has the collation of the database, that is the one which counts.
_FACTS = """
    SELECT current_setting('server_version_num')::int AS version,
           getdatabaseencoding()::text AS encoding, pg_is_in_recovery() AS standby, c.relkind::text AS kind,
           ARRAY(SELECT coalesce(CASE WHEN co.collname <> 'default' THEN co.collname::text
                                 WHEN coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c' THEN d.datcollate::text
                                 WHEN to_jsonb(d) ->> 'datlocprovider' = 'b' THEN to_jsonb(d) ->> 'datlocale' END, '')
                 FROM pg_attribute a JOIN pg_collation co ON co.oid = a.attcollation
                 WHERE a.attrelid = $2 AND a.attname = ANY ($3::text[])) AS collations,
           EXISTS (SELECT FROM pg_index i WHERE i.indrelid = $4 AND i.indisunique AND i.indisvalid
                     AND i.indpred IS NULL AND cardinality($5::text[]) = (
                         SELECT count(*) FROM pg_attribute a WHERE a.attrelid = $4 AND a.attname = ANY ($5)
                           AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
                     AND i.indnkeyatts = (
                         SELECT count(*) FROM pg_attribute a
                         WHERE a.attrelid = $4 AND a.attname = ANY ($5 || $8::text[])
                           AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))) AS placed,
           EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                   WHERE i.indrelid = $2 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                     AND i.indnkeyatts = 1 AND a.attname = ANY ($3::text[])) AS named_once,
           q.seqrelid AS sequence, q.seqincrement AS step
    FROM pg_class c JOIN pg_database d ON d.datname = current_database()
    LEFT JOIN pg_sequence q ON q.seqrelid = coalesce(
        (SELECT s.objid FROM pg_attribute a
         JOIN pg_depend s ON s.classid = 'pg_class'::regclass AND s.refclassid = 'pg_class'::regclass
              AND s.refobjid = a.attrelid AND s.refobjsubid = a.attnum AND s.deptype IN ('a', 'i')
         JOIN pg_class o ON o.oid = s.objid AND o.relkind = 'S'
         WHERE a.attrelid = c.oid AND a.attname = $6 LIMIT 1),
        (SELECT o.oid FROM pg_class o
         WHERE o.relnamespace = c.relnamespace AND o.relkind = 'S' AND o.relname = ANY ($7::name[])
         ORDER BY array_position($7::name[], o.relname) LIMIT 1))
    WHERE c.oid = $1
"""
_UNIQUE = """
    SELECT c.relname::text, pg_get_expr(i.indexprs, i.indrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE i.indrelid = ANY ($1::oid[]) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
      AND i.indexprs IS NOT NULL AND 0 = ALL (i.indkey::int2[])
"""
_INTEGERS = ("bigint", "integer", "smallint")
_TEXTS = ("text", "character varying", "character")
_TIMES = ("timestamp with time zone", "timestamp without time zone", "date")
TABLES = ("r", "p")


async def find_foreign(
    connection: asyncpg.Connection, store: str | None, oid: int | None, kinds: Sequence[OwnKind] = ()
) -> Layout | None:
    """Return the layout of the one store of another kind that is meant, None if there is none.

    `store` is the name that the user gave, of a table, whose `oid` is known then, or of a kind. Without a name the
    database must hold one store alone. `kinds` are those that the config file describes. Raises SchemaMissing for
    several, and for one that esx cannot read.
    """
    if oid is not None and store is not None:
        stores = [found for found in await read_stores(connection, kinds, children=True) if found.table.oid == oid]
    else:
        # Without a name a table like esx's own could be meant as well, but no view.
        stores = [
            found
            for found in await read_stores(connection, kinds)
            if store == found.kind.name or (store is None and found.table.kind in TABLES)
        ]
    if all(found.kind is OWN for found in stores):
        return None
    if len(stores) > 1 and all(found.problem is not None for found in stores):
        raise _refused(f"there are {named(stores)}, and none of them can be read: `esx stores` says why")
    if len(stores) > 1:
        raise _refused(f"there are {named(stores)}: choose one with --store, `esx stores` lists them")
    return await _layout(connection, stores[0])


async def open_own(connection: asyncpg.Connection, kind: OwnKind) -> Layout:
    """Return the layout of a store that the config file describes. Raises SchemaMissing."""
    assert kind.layout is not None
    stores = await read_own(connection, [kind])
    if not stores:
        where = visible(kind.layout.relation, limit=200)
        raise _refused(f"there is no {where} in this database, which {kind.layout.key} in the config file names")
    return await _layout(connection, stores[0])


async def find_again(connection: asyncpg.Connection, known: Layout) -> Layout | None:
    """Return the layout, as it is now, of another tool's store that was found before, without a search for it.

    None if it is esx's own, or not there any more by that name and with those columns.
    """
    if known.foreign is None:
        return None
    if isinstance(known.foreign.kind, OwnKind):
        return await open_own(connection, known.foreign.kind)
    assert known.base is not None
    kind = known.foreign.kind
    if kind.parts is None:
        tables = await read_tables(connection, (known.base, *known.beside))
    else:  # there may be more of them by now
        tables = await read_near(connection, known.base, {*kind.has, *kind.parts.has})
    for table in tables:
        if table.oid == known.base and table.quoted == known.called and fits(kind, table):
            found = with_beside(table, kind, tables)
            return None if found is None else await _layout(connection, found)
    return None


async def find_others(connection: asyncpg.Connection, kinds: Sequence[OwnKind] = ()) -> list[FoundStore]:
    """Return the stores of other tools in the database, with those of `kinds`, that the config file describes."""
    return [found for found in await read_stores(connection, kinds) if found.kind is not OWN]


def _refused(reason: str) -> SchemaMissing:
    error = SchemaMissing(reason)
    error.of_others = True
    return error


async def _layout(connection: asyncpg.Connection, found: FoundStore) -> Layout:
    kind, table = found.kind, found.table
    called = visible(table.quoted, limit=200)
    if found.problem is not None or kind.reading is None:
        raise _refused(f"{called} belongs to a store of {kind.title}: {found.problem}")
    types = await _types(connection, found)
    tables = StoreTables(table, found.beside, types=types, parts=found.parts, unique=await _unique(connection, found))
    reading = kind.reading(tables)
    if not types:
        _check_types(found, reading)
    row, place = await _facts(connection, found, reading)
    if not row["placed"] and reading.otherwise is not None:
        reading = reading.otherwise
        row, place = await _facts(connection, found, reading)
    sequenced = reading.columns.stored("global_seq")
    if kind.placed and not row["placed"]:
        raise _refused(
            f"{called} belongs to a store of {kind.title}, but it has no unique index on {' and '.join(place)} alone: "
            "esx cannot read it yet"
        )
    if reading.names is not None and reading.names.once and not row["named_once"]:
        names = reading.names
        raise _refused(
            f"{called} belongs to a store of {kind.title}, but {visible(names.table.quoted, limit=200)} has no unique "
            f"index on {names.column} alone, so a name could mean two streams: esx cannot read it yet"
        )
    if row["version"] < _CHECKS_VALUES and _CHECKED in source(reading, table.quoted):
        raise _refused(
            f"{called} belongs to a store of {kind.title} with JSON or times as text or bytes: to read these, esx "
            "needs PostgreSQL 16 or later"
        )
    unnumbered = None if reading.numbered else f"this store of {kind.title} has no global order: choose a stream"
    disordered = f"in a store of {kind.title} {kind.unordered}" if kind.unordered is not None else None
    if unnumbered is not None:
        disordered = unnumbered
    elif table.kind not in TABLES:
        disordered = f"{called} is no table: which writers matter is not known, so no position is safe"
    elif kind.draws_apart and row["sequence"] is None and not isinstance(kind, OwnKind):
        disordered = f"no sequence belongs to column {sequenced} of {called}, so no position is safe"
    elif kind.sequences and row["step"] != 1:
        disordered = f"the application draws {row['step']} numbers at a time and uses them later: no position is safe"
    return Layout(
        **_sources(reading, table.quoted),
        called=table.quoted,
        schema=table.schema,
        name=table.name,
        kind=row["kind"],
        base=table.oid,
        base_sequence=row["sequence"],
        base_name=table.quoted,
        own=False,
        foreign=Foreign(kind, reading, None if kind.learn is None else tables),
        separator=reading.keys.separator if isinstance(reading.keys, Joined) else reading.separator,
        packed=reading.packed,
        moments=reading.moments,
        beside=tuple(sorted(other.oid for other in (*found.beside.values(), *found.parts))),
        parts=tuple(sorted(part.oid for part in found.parts)),
        counted=None if kind.counted is None else found.beside[kind.counted].oid,
        event_id=None if reading.columns.event_id == NO_ID else "event_id",
        byte_order=reading.columns.stream_id == NO_STREAM
        or (bool(row["collations"]) and set(row["collations"]) <= set(BYTE_ORDERED)),
        placed=row["placed"] or bool(found.parts),
        timed=reading.columns.created_at != NO_TIME,
        lockable=False,
        standby=row["standby"],
        encoding=row["encoding"],
        restricted="view, foreign-table" if table.kind in TABLES else "",
        refuses_appends=f"{called} belongs to a store of {kind.title}: esx only reads it",
        warning=await _warning(connection, found, None if row["placed"] else _unplaced(found, reading)),
        unnumbered=unnumbered,
        disordered=disordered,
    )


def _sources(reading: Reading, called: str) -> dict[str, Any]:
    """Return what a layout reads from, by the names of its fields."""
    names, keys = reading.names, reading.keys
    return {
        "table": source(reading, called),
        "number_table": numbers(reading, called),
        "stream_table": None if reading.in_stream is None else source(reading.in_stream, called, keys),
        "name_table": None if names is None else names.query,
        "name_listed": None if names is None else names.listed,
        "name_hidden": None if names is None else names.hidden,
        "name_keys": keys if names is None else names.keys,
        "category": reading.category,
        "keys": keys,
    }


async def learn(connection: asyncpg.Connection, layout: Layout) -> Layout:
    """Return the layout with what has to be read from the rows of its tables, whose owners must be trusted by now."""
    foreign = layout.foreign
    if foreign is None or foreign.tables is None:
        return layout
    kind = foreign.kind
    assert kind.learn is not None
    assert kind.reading is not None
    rows = await fetch(connection, kind.learn(foreign.tables))
    reading = kind.reading(foreign.tables._replace(learned=[tuple(row) for row in rows]))
    return replace(layout, foreign=replace(foreign, reading=reading), **_sources(reading, layout.called))


async def _unique(connection: asyncpg.Connection, found: FoundStore) -> dict[str, Collection[str]]:
    """Return the expressions of the unique indexes of the store's parts, by their names."""
    if not found.parts:
        return {}
    unique: dict[str, list[str]] = {}
    for name, expressions in await connection.fetch(_UNIQUE, [part.oid for part in found.parts]):
        unique.setdefault(name, []).append(expressions)
    return dict(unique)


async def _facts(
    connection: asyncpg.Connection, found: FoundStore, reading: Reading
) -> tuple[asyncpg.Record, list[str]]:
    """Return what the catalogs say of the tables, and the columns of the place of an event in its stream."""
    table, names, keys = found.table, reading.names, reading.keys
    in_stream = reading.in_stream or reading
    stream_columns = keys.columns if keys is not None else (in_stream.columns.stream_id,)
    place = [stored(each) for each in (*stream_columns, in_stream.columns.stream_seq)]
    of_names = (in_stream.oid or table.oid, place)
    if found.parts:  # what their names are made of has the collation of the database
        of_names = (found.parts[0].oid, ["event_name"])
    elif names is not None:
        of_names = (names.table.oid, [stored(f"r.{names.column}")])
    elif keys is None:
        of_names = (of_names[0], place[:1])
    else:
        of_names = (of_names[0], place[: len(keys.columns)])
    sequenced = reading.columns.stored("global_seq")
    row = await connection.fetchrow(
        _FACTS,
        table.oid,
        *of_names,
        in_stream.oid or table.oid,
        place,
        sequenced,
        found.kind.sequences,
        found.kind.also_placed,
    )
    if row is None:
        raise _refused(f"{visible(table.quoted, limit=200)} is gone")
    return row, place


async def _types(connection: asyncpg.Connection, found: FoundStore) -> dict[str, str]:
    """Return the types of the expressions in the config file, none for other kinds. Nothing is planned or run."""
    layout = found.kind.layout if isinstance(found.kind, OwnKind) else None
    if layout is None:
        return {}
    query = "SELECT "
    ends: list[tuple[int, str]] = []
    for setting, sql in layout.expressions():
        query += f"{', ' if ends else ''}{sql} AS {setting}"
        ends.append((len(query), setting.rstrip("0123456789").rstrip("_")))
    query += f" FROM {found.table.quoted} r {layout.joins}"
    ends.append((len(query), "joins"))
    query += f" WHERE {layout.where or 'true'}"
    ends.append((len(query), "where"))
    try:
        statement = await connection.prepare(query, name="")  # it leaves nothing in the session of a pooler
    except asyncpg.PostgresError as error:
        at = int(getattr(error, "position", None) or 0)
        setting = next((name for end, name in ends if 0 < at <= end), "")
        where = f"{layout.key}.{setting}" if setting else layout.key
        raise _refused(f"{where} in the config file: {visible(told(error), limit=300)}") from None
    return {attribute.name: attribute.type.name for attribute in statement.get_attributes()}


def _unplaced(found: FoundStore, reading: Reading) -> str | None:
    """Return what to know of a store in which nothing keeps two events from one place of a stream."""
    in_stream = reading.in_stream or reading
    if found.parts or in_stream.table is not None or reading.columns.stream_id == NO_STREAM:
        return None
    return "no unique index keeps two events from one place of a stream: of two in one place a page can leave one out"


async def _warning(connection: asyncpg.Connection, found: FoundStore, unplaced: str | None) -> str | None:
    table, caution = found.table, found.kind.caution
    if table.kind in TABLES:
        return "; ".join(each for each in (caution, unplaced) if each is not None) or None
    owner = await connection.fetchval("SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = $1", table.oid)
    return (
        f"{visible(table.quoted, limit=200)} is a view or a foreign table of user {visible(owner, limit=200)}, and "
        f"what its owner has put into it runs when it is read{'' if caution is None else f'; {caution}'}"
    )


def _check_types(found: FoundStore, reading: Reading) -> None:
    """Raise SchemaMissing if a column has a type that the kind does not have."""
    wanted: dict[str, tuple[str, ...]] = {
        "global_seq": _INTEGERS,
        "stream_seq": _INTEGERS,
        "event_type": _TEXTS,
        "created_at": _TIMES,
        "event_id": ("uuid", *_TEXTS),
    }
    if reading.keys is None:
        wanted["stream_id"] = _TEXTS
    for name, types in wanted.items():
        column = reading.columns.stored(name)
        type_ = found.table.columns.get(column)
        if type_ is not None and type_ not in types:
            raise _refused(
                f"{visible(found.table.quoted, limit=200)} looks like a store of {found.kind.title}, but its column "
                f"{visible(column, limit=60)} is of type {visible(type_, limit=60)}: esx cannot read it"
            )


def named(stores: Sequence[FoundStore]) -> str:
    """Return the names of stores with their kinds, as part of a line."""
    names = [f"{visible(found.table.quoted, limit=100)} ({found.kind.title})" for found in stores[:3]]
    return f"{', '.join(names)}{' and more' if len(stores) > 3 else ''}"

"""prooph or Ecotone. Source: prooph/pdo-event-store, PersistenceStrategy/Postgres*.php.

The table by which the store is recognised lists the others, which have the events: all aggregates of a kind in each, or
one stream in each. The former are known by their unique index. Their streams are found along it; in the others `no` is
the number in the stream.
"""

import re
from collections.abc import Collection

from esx.layouts.foreign.kind import (
    UNNUMBERED,
    CheckpointColumns,
    Checkpoints,
    EventColumns,
    Names,
    Reading,
    StoreKind,
    kept,
)
from esx.layouts.foreign.tables import Parts, StoreTable, StoreTables
from esx.layouts.stream_keys import ID, Categorised
from esx.postgres.literals import literal

_COLUMNS = ("r.category", "r.id")
_TYPE, _ID, _VERSION = (f"(p.metadata ->> '_aggregate_{name}')" for name in ("type", "id", "version"))
_KEYS = ["_aggregate_type", "_aggregate_id", "_aggregate_version"]
_NUMBER = f"CASE WHEN {_VERSION} ~ '^[0-9]{{1,18}}$' THEN {_VERSION}::bigint END"
_NOTHING = (
    "SELECT NULL::uuid AS event_id, NULL::text AS event_name, NULL::json AS payload, NULL::json AS metadata, "
    "NULL::timestamptz AS created_at, NULL::text AS category, NULL::text AS id, NULL::bigint AS version WHERE false"
)
_JSON = ("json", "jsonb")


def _has_many(tables: StoreTables, part: StoreTable) -> bool:
    """Return whether a table has many streams: those of the aggregates in it."""
    return any(re.findall(r"->> '(\w+)'", each) == _KEYS for each in tables.unique.get(part.name, ()))


def _learn(tables: StoreTables) -> str:
    """Return the query for the names of the tables with the names of their streams, and for the aggregate types."""
    names = ", ".join(literal(part.name) for part in tables.parts) or "NULL"
    queries = [
        "SELECT r.stream_name::text, r.real_stream_name::text, false AS is_type "
        f"FROM {tables.events.quoted} r WHERE r.stream_name IN ({names})"
    ]
    for part in tables.parts:
        if _has_many(tables, part):
            first = f"SELECT {_TYPE} FROM {part.quoted} p WHERE {_TYPE}"
            end = f"ORDER BY {_TYPE} LIMIT 1"
            queries.append(
                f"SELECT {literal(part.name)}, t.name, true FROM (WITH RECURSIVE types (name) AS ("
                f"({first} IS NOT NULL {end}) UNION ALL SELECT ({first} > types.name {end}) FROM types "
                "WHERE types.name IS NOT NULL) SELECT types.name FROM types WHERE types.name IS NOT NULL) t"
            )
    return " UNION ALL ".join(queries)


def _categories(types: Collection[str]) -> dict[str, str]:
    """Return the aggregate types, each with its category: of the name of a class its last part, in small letters.

    They differ, if need be by underscores.
    """
    shown: dict[str, str] = {}
    for name in sorted(types, key=lambda name: ("\\" in name, name)):
        category = (name.rpartition("\\")[2].lower() if "\\" in name else name).replace("-", "_")
        while category in shown.values():
            category += "_"
        shown[name] = category
    return shown


def _union(tables: StoreTables, parts: list[tuple[StoreTable, str, str, str]]) -> str:
    """Return what the rows are read from: each table with its expressions for category, id and number.

    A condition on these is evaluated in each of them: by its index, or not at all where they are constants.
    """
    casts = {}
    for column in ("payload", "metadata"):  # the rows of a UNION have one type
        mixed = len({part.columns[column] for part in tables.parts}) > 1
        casts[column] = f"p.{column}::json AS {column}" if mixed else f"p.{column}"
    queries = [
        f"SELECT p.event_id, p.event_name, {casts['payload']}, {casts['metadata']}, {part.moment('created_at', 'p')} "
        f"AS created_at, {category} AS category, {id_} AS id, {number} AS version FROM {part.quoted} p"
        for part, category, id_, number in parts
    ]
    return f"({' UNION ALL '.join(queries) or _NOTHING})"


def _listed(keys: Categorised, rows: str) -> str:
    """Return the condition that a stream, `ID`, has events. Its LIMIT, unlike EXISTS, is in the plan."""
    name = "r.name"
    there = f"SELECT true FROM (SELECT {keys.select()} FROM {rows} r) e WHERE {keys.compared('e', '=', name)} LIMIT 1"
    return f"coalesce((SELECT ({there}) FROM (SELECT {ID}::text AS name) r), false)"


def _reading(tables: StoreTables) -> Reading:
    streams = {part.name: part.name for part in tables.parts}
    types: set[str] = set()
    if tables.learned is not None:
        streams = {table: name for table, name, is_type in tables.learned if not is_type}
        types = {name for _, name, is_type in tables.learned if is_type}
    shown = _categories(types)
    of_category = {category: type_ for type_, category in shown.items()}
    many, one = [], []
    for part in tables.parts:
        if part.name in streams and _has_many(tables, part):
            many.append((part, _TYPE, _ID, _NUMBER))
        elif part.name in streams:
            category, _, rest = streams[part.name].partition("-")
            category = of_category.setdefault(category, category)
            shown.setdefault(category, category)
            one.append((part, f"{literal(category)}::text", f"{literal(rest)}::text", "p.no"))
    keys = Categorised(_COLUMNS, (False, False), "-", shown=tuple(sorted(shown.items())))
    # A type that was not there yet when the types were read has no category yet. This is no condition for an index.
    known = f"coalesce(r.category, '') IN ({', '.join(literal(name) for name, _ in keys.shown) or 'NULL'})"
    union = _union(tables, many + one)
    names = None
    if one:
        values = ", ".join(f"({category}, {rest})" for _, category, rest, _ in one)
        rows = f"SELECT v.category, v.id FROM (VALUES {values}) v (category, id)"
        if many:
            rows += f" UNION ALL SELECT r.category, r.id FROM {_union(tables, many)} r WHERE {known}"
        named = f"(SELECT {keys.joined()} AS stream_id, r.category, r.id FROM ({rows}) r)"
        names = Names(tables.events, "stream_id", keys=keys, rows=named, listed=_listed(keys, union))
    return Reading(
        EventColumns(
            global_seq=UNNUMBERED,
            stream_id=keys.joined(),
            stream_seq="r.version",
            event_type="r.event_name",
            data="r.payload",
            metadata="r.metadata",
            created_at="r.created_at",
            event_id="r.event_id",
        ),
        rows=union,
        where=known if many else "",
        keys=keys,
        names=names,
    )


def _projections(_tables: StoreTables, table: StoreTable) -> CheckpointColumns:
    # A position has a number for each stream.
    return CheckpointColumns("c.name", at="c.position", state=kept(table, "status"))


def _ecotone(_tables: StoreTables, _table: StoreTable) -> CheckpointColumns:
    return CheckpointColumns("concat_ws(' ', c.projection_name, nullif(c.partition_key, ''))", at="c.last_position")


KIND = StoreKind(
    "prooph",
    "prooph or Ecotone",
    has=("no", "real_stream_name", "stream_name", "metadata", "category"),
    reading=_reading,
    first=1,
    unordered="each stream is a table of its own, with numbers of its own",
    placed=False,
    checkpoints=(
        Checkpoints(("no", "name", "position", "state", "status"), _projections),
        Checkpoints(("projection_name", "partition_key", "last_position"), _ecotone),
    ),
    parts=Parts(
        re.compile("_[0-9a-f]{40}"),
        {
            "no": ("bigint", "integer"),
            "event_id": ("uuid",),
            "event_name": ("character varying", "text"),
            "payload": _JSON,
            "metadata": _JSON,
            "created_at": ("timestamp without time zone", "timestamp with time zone"),
        },
    ),
    learn=_learn,
)

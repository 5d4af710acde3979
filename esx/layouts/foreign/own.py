"""A store that the config file describes: its relation and its columns, for stores that no tool has made.

What it says is trusted as code of the user is: its expressions are part of the queries.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from esx.errors import SchemaMissing
from esx.layouts.foreign.kind import NO_ID, NO_TIME, RELATIVE, UNNUMBERED, EventColumns, Names, Reading, StoreKind
from esx.layouts.foreign.tables import NO_METADATA, UTC, Packed, StoreTables
from esx.layouts.stream_keys import Joined, StreamKeys, as_uuid, joined
from esx.text import visible

OPTIONAL = ("metadata", "created_at", "event_id", "correlation", "causation")
"""The settings for columns of an event that it can lack."""
Order = Literal["sequence", "serialised", "none"]
Rule = Literal["locks", "none needed", "not promised"]
_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_RELATION = re.compile(rf"({_IDENTIFIER})\.({_IDENTIFIER})")
_QUALIFIED = re.compile(rf"({_IDENTIFIER})\s*\.\s*({_IDENTIFIER})")
_PLAIN = re.compile(r"[^\W\d]\w*")
_READ = re.compile(rf"\br\.({_IDENTIFIER})")
_TEXTS = ("text", "varchar", "bpchar")
_INTEGERS = ("int8", "int4", "int2")
_DATES = ("timestamp", "date")


@dataclass(frozen=True, slots=True)
class OwnLayout:
    """The layout `name` of the config file: where the events are, and what makes an event of a row ``r``.

    `relation` is the name of a table, as SQL writes it, with its schema, and so is the first of `streams`, which has
    the names of the streams in the column that is the second. A value that is a plain name is a column; others are SQL.
    Several of `stream_id` are joined by the `separator`; it ends the category. `order` says how global_seq are given:
    from a sequence, by writers that wait for each other, or in no order. `rule` says how the feed knows that no event
    can appear below a position: by the locks of the writers, by nothing as numbers appear in order, or not at all.
    """

    name: str
    relation: str
    stream_id: tuple[str, ...]
    stream_seq: str
    event_type: str
    data: str
    global_seq: str | None = None
    metadata: str | None = None
    created_at: str | None = None
    event_id: str | None = None
    correlation: str | None = None
    causation: str | None = None
    separator: str | None = None
    first: int = 0
    joins: str = ""
    where: str = ""
    streams: tuple[str, str] | None = None
    order: Order = "sequence"
    rule: Rule = "locks"
    title: str = ""
    caution: str | None = None

    @property
    def key(self) -> str:
        """Where it is in the config file."""
        return f"layouts.{self.name}"

    def expressions(self) -> Iterator[tuple[str, str]]:
        """Yield each setting that makes a column of an event, and its SQL."""
        for number, column in enumerate(self.stream_id, 1):
            yield f"stream_id_{number}", _sql(column)
        for setting in ("global_seq", "stream_seq", "event_type", "data", *OPTIONAL):
            value = getattr(self, setting)
            if value is not None:
                yield setting, _sql(value)

    def columns(self) -> frozenset[str]:
        """Return the columns of the relation that it names."""
        return frozenset(_folded(name) for text in self._texts() for name in _READ.findall(text))

    def joined(self) -> frozenset[tuple[str, str]]:
        """Return all that may be another table in its SQL, by schema and name."""
        # Guarded sessions find no table without its schema.
        found = {(_folded(a), _folded(b)) for text in self._texts() for a, b in _QUALIFIED.findall(text)}
        return frozenset(found - {relation_of(self.relation)})

    def _texts(self) -> tuple[str, ...]:
        return (*(sql for _, sql in self.expressions()), self.joins, self.where)


@dataclass(frozen=True, slots=True, eq=False)
class OwnKind(StoreKind):
    """The kind of a store that the config file describes. It is found by the names of its tables, (schema, name).

    `others` are the names of tables that its SQL may read, whose owners count as well.
    """

    layout: OwnLayout | None = None
    relation: tuple[str, str] = ("", "")
    streams: tuple[str, str] | None = None
    others: frozenset[tuple[str, str]] = frozenset()


def own_kind(layout: OwnLayout) -> OwnKind:
    """Return the kind that a layout describes."""
    unordered = None
    if layout.order == "none" or layout.rule == "not promised":
        unordered = f"no position is safe, as {layout.key} in the config file says"
    return OwnKind(
        layout.name,
        layout.title or layout.name,
        has=layout.columns(),
        beside={} if layout.streams is None else {"streams": (layout.streams[1],)},
        reading=partial(_reading, layout),
        first=layout.first,
        unordered=unordered,
        draws_apart=True,
        placed=False,
        caution=layout.caution,
        layout=layout,
        relation=relation_of(layout.relation),
        streams=None if layout.streams is None else relation_of(layout.streams[0]),
        others=layout.joined(),
    )


def relation_of(text: str) -> tuple[str, str]:
    """Return the schema and the name of a relation. Raises ValueError if they are not written as SQL does."""
    found = _RELATION.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return _folded(found[1]), _folded(found[2])


def _folded(name: str) -> str:
    """Return the name that an identifier of SQL means."""
    if name.startswith('"'):
        return name[1:-1].replace('""', '"')
    return "".join(char.lower() if char.isascii() else char for char in name)


def _sql(value: str) -> str:
    """Return the expression for a value: a column with exactly that name, or the SQL that it is."""
    if _PLAIN.fullmatch(value) is None:
        return value if _READ.fullmatch(value) else f"({value})"
    return f"r.{value}" if re.fullmatch("[a-z_][a-z0-9_]*", value) else f'r."{value}"'


def _reading(layout: OwnLayout, tables: StoreTables) -> Reading:
    types, sql = tables.types, dict(layout.expressions())
    ids = [name for name in sql if name.startswith("stream_id_")]
    stream_id, keys = _stream(layout, [(sql[name], types[name]) for name in ids])
    for setting in ("global_seq", "stream_seq"):
        if types.get(setting, "int8") not in _INTEGERS:
            raise _wrong(layout, setting, types[setting], "name an integer, or an expression for one that has an index")
    return Reading(
        EventColumns(
            global_seq=sql.get("global_seq", UNNUMBERED),
            stream_id=stream_id,
            stream_seq=sql["stream_seq"],
            event_type=_text(sql["event_type"], types["event_type"]),
            data=_payload(sql["data"], types["data"]),
            metadata=_payload(sql["metadata"], types["metadata"]) if "metadata" in sql else NO_METADATA,
            created_at=_time(layout, sql["created_at"], types["created_at"]) if "created_at" in sql else NO_TIME,
            event_id=_event_id(layout, sql["event_id"], types["event_id"]) if "event_id" in sql else NO_ID,
        ),
        joins=layout.joins,
        where=f"({layout.where})" if layout.where else "",
        keys=keys,
        names=_names(layout, tables),
        separator=layout.separator or "-",
        correlation=_text(sql["correlation"], types["correlation"]) if "correlation" in sql else None,
        causation=_text(sql["causation"], types["causation"]) if "causation" in sql else None,
        causes_numbered=types.get("causation") in _INTEGERS,
    )


def _text(sql: str, type_: str) -> str:
    return sql if type_ in _TEXTS else f"{sql}::text"


def _stream(layout: OwnLayout, parts: list[tuple[str, str]]) -> tuple[str, StreamKeys | None]:
    """Return the expression for the id of a stream, and how a stream is found if that is not by the id itself."""
    columns, types = zip(*parts, strict=True)
    if len(columns) == 1 and types[0] in _TEXTS:
        return columns[0], None
    for column, type_ in parts:
        if type_ not in (*_TEXTS, *_INTEGERS, "uuid"):
            raise _wrong(layout, "stream_id", type_, f"write an expression that is text, such as {column}::text")
    keys = Joined(
        columns,
        tuple(type_ == "uuid" for type_ in types),
        layout.separator or "/",
        tuple(type_ in _INTEGERS for type_ in types),
    )
    return joined(columns, keys.separator), keys


def _payload(sql: str, type_: str) -> str | Packed:
    return sql if type_ in ("json", "jsonb") else Packed(sql, type_)


def _time(layout: OwnLayout, sql: str, type_: str) -> str:
    """Return the expression for a time; without a zone it is UTC, and a text that is no time is none."""
    if type_ == "timestamptz":
        return sql
    if type_ in _DATES:
        return UTC.format(f"{sql}::timestamp")
    if type_ not in _TEXTS:
        raise _wrong(
            layout, "created_at", type_, f"write an expression for a time, such as to_timestamp({sql} / 1000.0)"
        )
    # A letter or a sign after the minutes is a zone.
    return (
        f"CASE WHEN {sql} !~* '{RELATIVE}' AND pg_catalog.pg_input_is_valid({sql}, 'timestamptz') THEN "
        f"CASE WHEN {sql} ~ ':[0-9].*[-+A-Za-z]' "
        f"THEN {sql}::timestamptz ELSE {UTC.format(f'{sql}::timestamp')} END END"
    )


def _event_id(layout: OwnLayout, sql: str, type_: str) -> str:
    if type_ in _TEXTS:
        return as_uuid(sql)
    if type_ != "uuid":
        raise _wrong(layout, "event_id", type_, "name a column with UUIDs, or leave it out")
    return sql


def _names(layout: OwnLayout, tables: StoreTables) -> Names | None:
    if layout.streams is None:
        return None
    table, column = tables.beside["streams"], layout.streams[1]
    if table.columns[column] not in ("text", "character varying"):
        raise _wrong(
            layout, "streams", table.columns[column], "name a column of text that has the ids, or leave it out"
        )
    return Names(table, _sql(column).removeprefix("r."))


def _wrong(layout: OwnLayout, setting: str, type_: str, remedy: str) -> SchemaMissing:
    what = f"{layout.key}.{setting} in the config file is of type {visible(type_, limit=60)}, which esx does not read"
    error = SchemaMissing(f"{what}: {remedy}")
    error.of_others = True
    return error

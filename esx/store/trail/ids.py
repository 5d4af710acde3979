"""The ids that connect the events of a store: where they are, and which of them an index finds."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from esx.layouts.foreign.kind import stored
from esx.layouts.foreign.source import looked_into
from esx.layouts.layout import Layout
from esx.postgres.literals import literal
from esx.store.trail.trail import COMMON_FIELDS, NUMBERS, FieldNames

_INDEXES = """
    SELECT CASE WHEN i.indkey[0] = 0 THEN pg_get_indexdef(i.indexrelid, 1, true) ELSE quote_ident(a.attname) END AS key,
           pg_get_expr(i.indpred, i.indrelid, true) AS predicate
    FROM pg_index i LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attnum > 0
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
    WHERE i.indrelid = {} AND i.indisvalid AND m.amname = 'btree'
"""


class Id(NamedTuple):
    """An id of events: what people call it, its expression on a row of `Ids.source`, and whether an index has it."""

    name: str
    value: str
    indexed: bool


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids that connect events; of several, the first that is there counts.

    `source` is what follows FROM, with rows ``e``. `own` is the expression for an event's own id, beside the column
    event_id; `event_id_is` is the condition that the latter is the text $1, "" if no index has it. `by_number` says
    that a cause is named by its global_seq.
    """

    source: str
    correlation: tuple[Id, ...]
    causation: tuple[Id, ...]
    own: str
    event_id_is: str
    by_number: bool

    @property
    def cause(self) -> str:
        """The expression for the id of an event's cause."""
        return _first(each.value for each in self.causation)


async def find_ids(connection: asyncpg.Connection, layout: Layout, fields: FieldNames) -> Ids:
    """Return the ids of a store. Names that the user has chosen win over what is known of the kind of the store."""
    keys = set()
    for key, predicate in await connection.fetch(_INDEXES.format(layout.base_oid)):
        # Another predicate would leave out events that belong to the trail.
        if predicate in (None, f"{key} IS NOT NULL", f"({key}) IS NOT NULL"):
            keys.add(key)
    column = re.escape(layout.stored("metadata"))
    member = re.compile(rf"""\(?"?{column}"? ->> '((?:[^']|'')*)'::text\)?""")
    named = {match[1].replace("''", "'") for match in map(member.fullmatch, keys) if match} if column else set()
    source, metadata = f"{layout.linked} e", "e.metadata"
    types = ("jsonb", "uuid") if layout.foreign is None else await _types(connection, layout)
    if types[0] != "jsonb":
        # Once for each row, as to check it takes time.
        valid = looked_into("e.metadata::text", "e.metadata::text::jsonb")
        source, metadata = f"{source} CROSS JOIN LATERAL (SELECT {valid} AS metadata OFFSET 0) m", "m.metadata"

    def ids(what: str) -> tuple[Id, ...]:
        names, common = getattr(fields, what), getattr(COMMON_FIELDS, what)
        if layout.foreign is not None and names == common:
            expression = getattr(layout.foreign.reading, what)
            if expression is not None:
                name = stored(expression)
                return (Id(name or common[0], f"e.trail_{what}", name in keys),)
            names = getattr(layout.foreign.kind, what, ()) or names
        return tuple(
            Id(name, f"({'e.metadata' if name in named else metadata} ->> {literal(name)})", name in named)
            for name in names
        )

    by_number = layout.foreign is not None and layout.foreign.reading.causes_numbered
    by_number = (by_number and fields.causation == COMMON_FIELDS.causation) or fields.causation[0] in NUMBERS
    identity = ids("identity")
    event_id_is = ""
    if layout.event_id and layout.stored(layout.event_id) in keys:
        event_id_is = f"e.{layout.event_id} = $1::text{'::uuid' if types[1] == 'uuid' else ''}"
    elif identity and identity[0].indexed and identity[0].value == "e.trail_identity":
        event_id_is = "e.trail_identity = $1::text"
    return Ids(
        source,
        ids("correlation"),
        ids("causation"),
        "e.global_seq::text" if by_number else _first(each.value for each in identity),
        event_id_is,
        by_number,
    )


async def _types(connection: asyncpg.Connection, layout: Layout) -> Sequence[str]:
    """Return the types of the metadata and of the ids of events. No row is read."""
    columns = [f"pg_typeof((SELECT e.{name} FROM {layout.table} e LIMIT 0))::text" for name in ("metadata", "event_id")]
    types: Sequence[str] = await connection.fetchval(f"SELECT ARRAY[{', '.join(columns)}]")
    return types


def _first(values: Iterable[str]) -> str:
    values = ", ".join(f"nullif({value}, '')" for value in values)
    return f"coalesce({values})" if values else "NULL::text"

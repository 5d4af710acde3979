"""The tokens of Axon Framework's event processors: JSON or XML in bytes, or in a large object.

A token has the number of the last event and the numbers that it has not seen below it. While a processor goes through
old events again, its token has two others in it, of which the current one counts.
"""

from esx.layouts.foreign.kind import CheckpointColumns, StoreCheck, kept
from esx.layouts.foreign.tables import StoreTable, StoreTables, large_object

_MOST = 100_000
_MANY_GAPS = 250
"""So many Axon keeps before it cleans up."""
_NUMBER = '(?:globalIndex|global-index|index)(?:"\\s*:\\s*|>)([0-9]+)'


def tokens(_tables: StoreTables, table: StoreTable) -> CheckpointColumns:
    """Return how a table of tokens is read, whose names are written with or without underscores."""
    processor = "c.processor_name" if "processor_name" in table.columns else "c.processorname"
    position = at = state = "NULL"
    kind = table.columns["token"]
    if kind in ("bytea", "oid"):
        text = _text(large_object("c.token") if kind == "oid" else "c.token")
        # Jackson writes the two tokens in either order, and null for one that has not begun.
        current = f"coalesce(substring({text} FROM 'currentToken(?!\"\\s*:\\s*null).*'), "
        current += f"CASE WHEN {text} !~ 'currentToken' THEN {text} END)"
        position = f"substring({current} FROM '{_NUMBER}')"
        at = f"CASE WHEN {text} ~ 'gaps|^large object' THEN {text} END"
        state = f"CASE WHEN {text} ~ 'tokenAtReset' THEN 'replaying' END"
    return CheckpointColumns(
        f"CASE WHEN c.segment = 0 THEN {processor}::text ELSE concat({processor}, '/', c.segment) END",
        position,
        at=at,
        state=state,
        owner=kept(table, "owner"),
        updated_at=kept(table, "timestamp"),
    )


def _text(token: str) -> str:
    # Other bytes than ASCII become escapes: this accepts any.
    return f"encode(substring({token} FROM 1 FOR {_MOST}), 'escape')"


def _gaps(tables: StoreTables, _old: float) -> str | None:
    table = next((each for each in tables.checkpoints if each.columns.get("token") == "bytea"), None)
    if table is None:
        return None
    text = _text("c.token")
    listed = f"""substring({text} FROM '"gaps"\\s*:\\s*\\[([0-9, ]*)')"""
    in_xml = f"(length({text}) - length(replace({text}, '<long>', ''))) / 6"
    gaps = f"coalesce(cardinality(string_to_array({listed}, ',')), 0) + {in_xml}"
    name = tokens(tables, table).name
    counted = f"SELECT {name} AS name, {gaps} AS gaps FROM {table.quoted} c"
    return f"SELECT name, gaps FROM ({counted}) t WHERE gaps > {_MANY_GAPS} LIMIT 20"


GAPS = StoreCheck(
    "token-gaps",
    "warning",
    "the token of {name} remembers {gaps} gaps: each of its reads asks for all of these numbers",
    f"no token remembers more than {_MANY_GAPS} gaps",
    _gaps,
)
"""A processor remembers the numbers that were not there when it read on."""

"""The query that makes events of the rows of another store: the columns of an `Event`, made of that store's own."""

from esx.layouts.foreign.kind import EventColumns, Reading
from esx.layouts.foreign.tables import Packed
from esx.layouts.stream_keys import StreamKeys

# UTF-8 without the character NUL, written as hexadecimal digits: PostgreSQL would refuse other bytes with an error, and
# one such row would hide all others.
_UTF8 = (
    "^(?:0[1-9a-f]|[1-7].|c[2-9a-f][89ab].|d.[89ab].|e0[ab].[89ab].|e[1-9abcef][89ab].[89ab].|ed[89].[89ab].|"
    "f0[9ab].(?:[89ab].){2}|f[1-3](?:[89ab].){3}|f48.(?:[89ab].){2})*$"
)


def source(reading: Reading, table: str, keys: StreamKeys | None = None, *, linked: bool = False) -> str:
    """Return what an event is read from, with the columns of schema.sql; `table` is the store's table of events.

    `keys` are those of its rows, if not those of the reading. `linked` adds the ids of a trail that are not in the
    metadata, as the columns ``trail_correlation``, ``trail_causation`` and ``trail_identity``.
    """
    columns = reading.columns
    listed = [f"{as_json(getattr(columns, name))} AS {name}" for name in EventColumns.__slots__]
    if reading.packed:
        listed += [f"{_raw(getattr(columns, name))} AS {name}_raw" for name in ("data", "metadata")]
    keys = keys or (reading.keys if reading.in_stream is None else None)
    if keys is not None:
        listed.append(keys.select())
    if linked:
        ids = {name: getattr(reading, name) for name in ("correlation", "causation", "identity")}
        listed += [f"{value} AS trail_{name}" for name, value in ids.items() if value is not None]
    return f"(SELECT {', '.join(listed)} FROM {_rows(reading, table)} r {reading.joins}{_where(reading)})"


def numbers(reading: Reading, table: str) -> str | None:
    """Return what the numbers of events are read from, None if that is the same as what events are read from."""
    if not reading.joins:
        return None
    return f"(SELECT {reading.columns.global_seq} AS global_seq FROM {_rows(reading, table)} r{_where(reading)})"


def _rows(reading: Reading, table: str) -> str:
    return reading.rows or (table if reading.table is None else reading.table.quoted)


def _where(reading: Reading) -> str:
    return f" WHERE {reading.where}" if reading.where else ""


def _raw(column: str | Packed) -> str:
    return column.raw if isinstance(column, Packed) else f"pg_catalog.convert_to(({column})::text, 'UTF8')"


def as_json(column: str | Packed) -> str:
    """Return the expression for a payload as JSON, NULL for what is none."""
    if isinstance(column, str):
        return column
    text = f"({column.expression})::text"
    if column.type != "bytea":
        return f"CASE WHEN pg_catalog.pg_input_is_valid({text}, 'json') THEN {text}::json END"
    raw = column.expression
    text = f"pg_catalog.convert_from({raw}, 'UTF8')"
    return (
        f"CASE WHEN pg_catalog.length({raw}) > 0 AND pg_catalog.encode({raw}, 'hex') ~ '{_UTF8}' THEN "
        f"CASE WHEN pg_catalog.pg_input_is_valid({text}, 'json') THEN {text}::json END END"
    )


def looked_into(text: str, expression: str) -> str:
    """Return an expression that looks into the JSON of a text, NULL where PostgreSQL would refuse that with an error.

    It does where the text is no JSON, and where any text in it has the character NUL, which jsonb does not take.
    """
    return f"CASE WHEN pg_catalog.pg_input_is_valid({text}, 'jsonb') THEN {expression} END"


def shallow(text: str) -> str:
    """Return the condition that a text has no JSON that is nested too deep for PostgreSQL, which would end the query.

    A text with very many objects and arrays counts as such too.
    """
    count = f"pg_catalog.length({text}) - pg_catalog.length(pg_catalog.translate({text}, '[{{', ''))"
    return f"(pg_catalog.octet_length({text}) <= {_MOST_NESTED} OR {count} <= {_MOST_NESTED})"


_MOST_NESTED = 5000
"""So deep PostgreSQL reads JSON in any case, with its usual max_stack_depth."""

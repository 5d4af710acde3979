"""Reads values that PostgreSQL holds and asyncpg cannot return: one such value must not hide all the others.

These are times before the year 1 and after 9999, and names and payloads that cannot be converted to UTF-8, or that are
any bytes in a database with the encoding SQL_ASCII. A query is first run as it is. Only if that fails for such a value,
it is run again, wrapped so that PostgreSQL returns each time as text and each text as bytes. Then such a time is a
`FarTime`, and in such a text the bytes that are no character are U+DC80 to U+DCFF (PEP 383). All other values are the
same as without this.

Names with such bytes can be used as arguments: they are sent as bytes.

A column of type json may hold escapes that are no text: ``\\u0000``, or half a character of UTF-16. PostgreSQL refuses
to search in such a value. Then the query is run once more, with U+FFFD for these escapes.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Any, TypeVar, cast

import asyncpg

from esx.model import Event
from esx.moment import from_driver, from_text
from esx.postgres.driver_errors import STALE
from esx.postgres.session import Session
from esx.text import is_text

Rows = Sequence[Any]
"""Records, or tuples of the same values."""
Fetch = Callable[..., Awaitable[Rows]]
"""Runs a query, given with its arguments as to `Connection.fetch`."""


T = TypeVar("T")

UNREADABLE = (
    OverflowError,  # a time
    UnicodeDecodeError,
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.UntranslatableCharacterError,
)
"""The errors for a value that cannot be returned."""
CREATED_AT = Event._fields.index("created_at") - len(Event._fields)
"""The index of created_at, from the end, in a row that ends with the columns of an event."""
_ZONE = attrgetter("tzinfo")
_AS_IT_IS = {"int2", "int4", "int8", "bool", "float4", "float8", "numeric", "uuid", "oid", "bytea"}
_TIMES = {"timestamptz": "{0}", "timestamp": "{0} AT TIME ZONE 'UTC'"}
_NOT_ASCII = re.compile(rb"([\x80-\xff]+)")
_NO_TEXT = re.compile("([\udc80-\udcff]+)")
_NO_JSON = (
    asyncpg.UntranslatableCharacterError,
    asyncpg.InvalidTextRepresentationError,
    asyncpg.FeatureNotSupportedError,  # of an escape that the encoding of the database has no character for
)
_LOOKED_INTO = re.compile(r"'(?:[^']|'')*'|(?P<column>\b(?:e\.)?(?:data|metadata))(?P<how> ->> |::jsonb\b)")
_PARAMETER = re.compile(r"'(?:[^']|'')*'|\$([0-9]+)")


async def fetch(connection: asyncpg.Connection, query: str, *arguments: Any, moment: int | None = None) -> Rows:
    """Run a query that only reads, as `connection.fetch` does, with any values.

    `moment` is the index in a row of a time that may be infinite, or that comes from a column without a time zone.
    """
    return await readable(connection, lambda run: run(query, *arguments), moment=moment)


async def fetchrow(connection: asyncpg.Connection, query: str, *arguments: Any, moment: int | None = None) -> Any:
    """Return the first row that `fetch` returns, None if there is none."""
    rows = await fetch(connection, query, *arguments, moment=moment)
    return rows[0] if rows else None


async def fetchval(connection: asyncpg.Connection, query: str, *arguments: Any) -> Any:
    """Return the first value of the first row that `fetch` returns, None if there is none."""
    row = await fetchrow(connection, query, *arguments)
    return None if row is None else row[0]


async def explain(connection: asyncpg.Connection, query: str, *arguments: Any) -> dict[str, Any]:
    """Return PostgreSQL's plan for a query, which is not run."""
    query, given = await with_bytes(connection, query, arguments)
    text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *given)
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


async def readable(
    connection: asyncpg.Connection, work: Callable[[Fetch], Awaitable[T]], *, moment: int | None = None
) -> T:
    """Do work that runs queries, such as in a transaction, and do it again if a value cannot be returned.

    It is also done again as `current` does it.

    `work` gets the function that runs its queries. It has to begin its transaction itself, as an error of PostgreSQL
    about a value ends the transaction.
    """
    return await current(connection, lambda: _readable(connection, work, moment))


async def current(connection: asyncpg.Connection, work: Callable[[], Awaitable[T]]) -> T:
    """Do work that runs queries in a transaction of its own, and again if a table was altered since they were prepared.

    Outside of such a transaction, asyncpg and the session do so themselves.
    """
    try:
        return await work()
    except STALE:
        if not await _recover(connection):
            raise
    return await work()


async def _readable(connection: asyncpg.Connection, work: Callable[[Fetch], Awaitable[T]], moment: int | None) -> T:
    async def plainly(query: str, *arguments: Any) -> Rows:
        rows: Rows = await connection.fetch(query, *arguments)
        return rows if moment is None else _with_moments(rows, moment)

    async def carefully(query: str, *arguments: Any) -> Rows:
        return await _carefully(connection, query, arguments)

    try:
        return await work(plainly)
    except (*UNREADABLE, *_NO_JSON) as error:
        # An error of Python comes from a query that was successful in PostgreSQL.
        if not await _recover(connection) and isinstance(error, asyncpg.PostgresError):
            raise
    except asyncpg.DataError as error:
        # asyncpg refuses an argument that cannot be sent as UTF-8 in this way.
        if not isinstance(error.__cause__ or error.__context__, UnicodeEncodeError):
            raise
    try:
        return await work(carefully)
    except _NO_JSON:
        if not await _recover(connection):
            raise
        return await work(lambda query, *arguments: carefully(_LOOKED_INTO.sub(_mended, query), *arguments))


async def _recover(connection: asyncpg.Connection) -> bool:
    """Return whether a query can be run after a failed one; a group of queries is begun again for that."""
    if not connection.is_in_transaction():
        return True
    # `isinstance` does not help: asyncpg makes all connections instances of all of its classes.
    return issubclass(type(connection), Session) and await cast("Session", connection).recover()


def _mended(found: re.Match[str]) -> str:
    column, how = found["column"], found["how"]
    return found[0] if column is None else f"({json_text(column)}){'::json' if how == ' ->> ' else ''}{how}"


def json_text(column: str) -> str:
    """Return the SQL for a column of type json as text without escapes that PostgreSQL refuses."""
    # First the backslashes that are escaped themselves, so that each one left begins an escape.
    text = rf"replace({column}::text, '\\', '\u005c')"
    half = r"\\u(?:0000|d[89ab]..(?!\\ud[c-f]))|(?<!\\ud[89ab]..)\\ud[c-f].."
    foreign = r"\\u(?:0000|00[89a-f].|0[1-9a-f]..|[1-9a-f]...)"
    return (
        f"CASE WHEN getdatabaseencoding() = 'UTF8' THEN regexp_replace({text}, '{half}', '\\\\ufffd', 'gi') "
        f"ELSE regexp_replace({text}, '{foreign}', '?', 'gi') END"
    )


def _with_moments(rows: Rows, at: int) -> Rows:
    try:
        if all(map(_ZONE, map(itemgetter(at), rows))):
            return rows
    except AttributeError:  # of no time at all
        if not any(map(itemgetter(at), rows)):
            return rows
    at %= len(rows[0])
    return [(*row[:at], from_driver(row[at]), *row[at + 1 :]) for row in rows]


async def _carefully(connection: asyncpg.Connection, query: str, arguments: Iterable[Any]) -> Rows:
    query, arguments = await with_bytes(connection, query, arguments)
    statement = await connection.prepare(query)
    types = [attribute.type.name for attribute in statement.get_attributes()]
    columns = [_column(f"c{place}", name) for place, name in enumerate(types)]
    names = ", ".join(f"c{place}" for place in range(len(types)))
    rows = await connection.fetch(f"SELECT {', '.join(columns)} FROM ({query}) q ({names})", *arguments)
    texts = [place for place, name in enumerate(types) if name not in _AS_IT_IS and name not in _TIMES]
    decoded = await _decoded(connection, (each for row in rows for place in texts for each in _several(row[place])))
    readers = [_reader(name, decoded) for name in types]
    return [tuple(read(value) for read, value in zip(readers, row, strict=True)) for row in rows]


def _column(name: str, kind: str) -> str:
    if kind in _AS_IT_IS:
        return name
    if kind in _TIMES:
        return moment_text(_TIMES[kind].format(name))
    if kind.endswith("[]"):
        each = f"SELECT {_raw('v')} FROM unnest({name}) WITH ORDINALITY each (v, n) ORDER BY n"
        return f"CASE WHEN {name} IS NOT NULL THEN ARRAY({each}) END"
    return _raw(name)


def _raw(name: str) -> str:
    return f"convert_to({name}::text, getdatabaseencoding())"


def _reader(kind: str, decoded: dict[bytes, str]) -> Callable[[Any], Any]:
    if kind in _AS_IT_IS:
        return lambda value: value
    if kind in _TIMES:
        return from_text
    if kind.endswith("[]"):
        return lambda value: None if value is None else [None if each is None else decoded[each] for each in value]
    return lambda value: None if value is None else decoded[value]


def _several(value: Any) -> Iterable[bytes]:
    values = value if isinstance(value, list) else (value,)
    return (each for each in values if each is not None)


async def _decoded(connection: asyncpg.Connection, values: Iterable[bytes]) -> dict[bytes, str]:
    """Return texts in the database's encoding as text."""
    if _is_utf8(connection):
        return {value: value.decode("utf-8", "surrogateescape") for value in values}
    # In all encodings of databases an ASCII byte is never a part of another character.
    parts = {value: _NOT_ASCII.split(value) for value in values}
    others = await _converted(connection, list({other for each in parts.values() for other in each[1::2]}))
    return {
        value: "".join(others[part] if place % 2 else part.decode("ascii") for place, part in enumerate(each))
        for value, each in parts.items()
    }


def _is_utf8(connection: asyncpg.Connection) -> bool:
    """Return whether texts of the database are read as UTF-8, as also in SQL_ASCII, where the encoding is unknown."""
    return connection.get_settings().server_encoding in ("UTF8", "SQL_ASCII")


async def _converted(connection: asyncpg.Connection, values: list[bytes]) -> dict[bytes, str]:
    """Return texts as PostgreSQL converts them; those that it cannot convert are found by halving."""
    if not values:
        return {}
    try:
        async with connection.transaction():  # else an error would end a transaction around it
            rows = await connection.fetch(
                "SELECT convert_from(v, getdatabaseencoding()) FROM unnest($1::bytea[]) WITH ORDINALITY each (v, n) "
                "ORDER BY n",
                values,
            )
    except UNREADABLE:
        if len(values) == 1:
            return {values[0]: values[0].decode("ascii", "surrogateescape")}
        half = len(values) // 2
        return await _converted(connection, values[:half]) | await _converted(connection, values[half:])
    return {value: row[0] for value, row in zip(values, rows, strict=True)}


async def with_bytes(connection: asyncpg.Connection, query: str, arguments: Iterable[Any]) -> tuple[str, list[Any]]:
    """Return the query and its arguments, in which texts that cannot be UTF-8 are sent as bytes."""
    given = list(arguments)
    how: dict[int, str] = {}
    for number, value in enumerate(given, 1):
        if isinstance(value, str) and not is_text(value):
            given[number - 1] = await _encoded(connection, value)
            how[number] = f"convert_from(${number}::bytea, getdatabaseencoding())"
        elif isinstance(value, list) and any(isinstance(each, str) and not is_text(each) for each in value):
            given[number - 1] = [await _encoded(connection, each) for each in value]
            how[number] = (
                f"(SELECT array_agg(convert_from(v, getdatabaseencoding()) ORDER BY n) "
                f"FROM unnest(${number}::bytea[]) WITH ORDINALITY each (v, n))"
            )
    if not how:
        return query, given
    return _PARAMETER.sub(lambda found: how.get(int(found[1] or 0), found[0]), query), given


async def _encoded(connection: asyncpg.Connection, name: str) -> bytes:
    """Return the bytes of a name in the database."""
    if _is_utf8(connection):
        return as_bytes(name)
    parts = _NO_TEXT.split(name)
    texts = await connection.fetchval(
        "SELECT array_agg(convert_to(v, getdatabaseencoding()) ORDER BY n) "
        "FROM unnest($1::text[]) WITH ORDINALITY each (v, n)",
        parts[::2],
    )
    parts[::2] = texts
    return b"".join(as_bytes(part) if isinstance(part, str) else part for part in parts)


def as_bytes(name: str) -> bytes:
    """Return a name in UTF-8, with its bytes that are no text as they are."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # of half a character of UTF-16, which no name holds
        return name.encode("utf-8", "surrogatepass")


def moment_text(moment: str) -> str:
    """Return the SQL for a timestamptz as text, as esx writes times: in UTC, in ISO 8601 where that has the time.

    `moment` is a column, or another cheap expression, as it is evaluated several times.
    """
    return (
        f"CASE WHEN NOT isfinite({moment}) THEN ({moment})::text "
        f"WHEN {moment} >= '0001-01-01Z'::timestamptz "
        f"""THEN to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') """
        f"ELSE replace(to_json({moment} AT TIME ZONE 'UTC') #>> '{{}}', ' BC', '+00:00 BC') END"
    )

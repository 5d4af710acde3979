"""Databases that hold what PostgreSQL holds and Python, JSON or UTF-8 does not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import asyncpg

from esx.eventstore import EventStore
from tests.conftest import administer, fresh_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.embedded import EmbeddedServer

INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data, metadata, created_at) VALUES "
CORRELATED = '{"correlation_id": "c"}'
TIMES = {
    "infinity": "infinity",
    "-infinity": "-infinity",
    "20000-01-01 00:00:00.5Z": "20000-01-01T00:00:00.500000Z",
    "294276-12-31 23:59:59.999999Z": "294276-12-31T23:59:59.999999Z",
    "10000-01-01 00:00:00Z": "10000-01-01T00:00:00.000000Z",
    "0001-12-31 23:59:59Z BC": "0001-12-31T23:59:59+00:00 BC",
    "0044-03-15 12:00:00.25Z BC": "0044-03-15T12:00:00.25+00:00 BC",
    "4713-01-01 00:00:00Z BC": "4713-01-01T00:00:00+00:00 BC",
}
"""Times as PostgreSQL takes them, and as all of esx writes them."""


class Encoding(NamedTuple):
    """An encoding of a database, bytes that are a character in it, that character, and bytes that are none."""

    name: str
    good: bytes
    character: str
    bad: bytes

    @property
    def shown(self) -> str:
        """The bad bytes as they are handed over."""
        return "".join(chr(0xDC00 + byte) for byte in self.bad)

    @property
    def visible(self) -> str:
        """The bad bytes as they are printed."""
        return "".join(f"\ufffd\\x{byte:02x}" for byte in self.bad)

    def sql(self, *parts: str | bytes) -> str:
        """Return the SQL for a text with these bytes in it."""
        raw = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
        return f"convert_from('\\x{raw.hex()}'::bytea, '{self.name}')"


# Bytes that no UTF-8 has; that this code page leaves open; and a place in the table where no character is.
SQL_ASCII = Encoding("SQL_ASCII", "é".encode(), "é", b"\xff")
WIN1252 = Encoding("WIN1252", b"\xe9", "é", b"\x81")
EUC_JP = Encoding("EUC_JP", "あ".encode("euc_jp"), "あ", b"\xfe\xfe")
ENCODINGS = (SQL_ASCII, WIN1252, EUC_JP)


_templates: set[tuple[int, str]] = set()
"""The servers that have a template in an encoding."""


@contextlib.asynccontextmanager
async def database(server: EmbeddedServer, encoding: str = "UTF8") -> AsyncIterator[str]:
    """Yield the address of a database of that encoding with the schema."""
    template = f"esx_template_{encoding.lower()}"
    if (server.pid, encoding) not in _templates:
        administer(
            server,
            f"CREATE DATABASE {template} TEMPLATE template0 ENCODING '{encoding}' LOCALE_PROVIDER libc "
            "LC_COLLATE 'C' LC_CTYPE 'C'",
        )
        async with EventStore.connect(server.dsn_for(template)) as store:
            await store.init()
        _templates.add((server.pid, encoding))
    async with fresh_database(server, template) as dsn:
        # Where the time zone shows if it is not asked for.
        administer(server, f"ALTER DATABASE {urlsplit(dsn).path[1:]} SET TimeZone = 'America/New_York'")
        yield dsn


async def run_sql(dsn: str, *statements: str) -> None:
    """Run statements over a bare connection."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fill_times(dsn: str) -> None:
    """Store an event of each of the odd times between two of today, numbers 1 to 10, a stream each."""
    times = ["now", *TIMES, "now"]
    rows = (f"('t-{n}', 0, 'T', '{{\"n\": {n}}}', '{CORRELATED}', '{time}')" for n, time in enumerate(times))
    await run_sql(dsn, INSERT + ", ".join(rows))


async def fill_bytes(dsn: str, encoding: Encoding) -> None:
    """Store event 2 with bytes that are no text in each of its texts, between two events that are sound."""
    e = encoding
    data, odd_data = e.sql('{"x": "', e.good, '"}'), e.sql('{"x": "', e.good, " ", e.bad, '"}')
    metadata = e.sql('{"correlation_id": "', e.bad, '"}')
    sound = f"({e.sql('s-', e.good)}, %s, {e.sql('T', e.good)}, ({data})::jsonb, NULL, now())"
    name = e.sql("b", e.bad, "-", e.good, " ", e.bad)
    odd = f"({name}, 0, {e.sql('T', e.bad)}, ({odd_data})::jsonb, ({metadata})::jsonb, now())"
    await run_sql(dsn, f"{INSERT}{sound % 0}, {odd}, {sound % 1}", "ANALYZE events")

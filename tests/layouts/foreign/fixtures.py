"""Databases of other event stores, as SQL, and what a reader must find in each.

They are the output of psql's kind of scripts: statements, and ``COPY ... FROM stdin`` with its lines.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.connections import connected

_DATA = Path(__file__).parent / "data"
_COPY = re.compile(r"^(COPY [^\n]*?) FROM stdin;\n(.*?)^\\\.\n", re.MULTILINE | re.DOTALL)
TABLES_HERE = (
    "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind IN ('r', 'p', 'm') "
    "AND relpersistence <> 't' AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
)
"""Names all tables of a database but PostgreSQL's own: to look at those would take longer than all that tests do."""
NAMES = sorted(path.name.removesuffix(".sql.gz") for path in _DATA.glob("*.sql.gz"))
TABLES = {"eventsourcing": "public.shop_events", "eventsourcing_encrypted": "public.shop_events"}
"""The table with the events, where a fixture has several stores."""

AKKA_JDBC = """
    CREATE TABLE event_journal (ordering bigserial UNIQUE, persistence_id varchar(255), sequence_number bigint,
        deleted boolean NOT NULL DEFAULT false, writer varchar(255) NOT NULL, write_timestamp bigint,
        adapter_manifest varchar(255), event_ser_id integer NOT NULL, event_ser_manifest varchar(255) NOT NULL,
        event_payload bytea NOT NULL, PRIMARY KEY (persistence_id, sequence_number));
"""
EVENTSOURCING = """
    CREATE TABLE shop_events (originator_id text NOT NULL, originator_version bigint NOT NULL, topic text, state bytea,
        notification_id bigserial UNIQUE, PRIMARY KEY (originator_id, originator_version));
"""
"""The tables of two tools, for tests that write rows of their own."""


def expected(name: str) -> dict[str, Any]:
    """Return what a reader must find."""
    found: dict[str, Any] = json.loads(gzip.decompress((_DATA / f"{name}.json.gz").read_bytes()))
    return found


async def load(connection: asyncpg.Connection, name: str, *, analyze: bool = True) -> None:
    """Make the tables of a store, fill them, and let PostgreSQL take its statistics of all tables but its own."""
    script = gzip.decompress((_DATA / f"{name}.sql.gz").read_bytes()).decode().replace(r" \g /dev/null", ";")
    script = script.removesuffix("ANALYZE;\n")  # of PostgreSQL's own tables too, which takes longer than all the rest
    end = 0
    for copy in _COPY.finditer(script):
        if statements := script[end : copy.start()].strip():
            await connection.execute(statements)
        table, columns = re.fullmatch(r"COPY (.*?) \((.*)\)", copy[1]).groups()  # type: ignore[union-attr]
        schema, _, relation = table.rpartition(".")
        await connection.copy_to_table(
            relation.strip('"'),
            schema_name=schema or None,
            columns=[column.strip().strip('"') for column in columns.split(",")],
            source=io.BytesIO(copy[2].encode()),
        )
        end = copy.end()
    if statements := script[end:].strip():
        await connection.execute(statements)
    if analyze:
        await connection.execute(f"ANALYZE {await connection.fetchval(TABLES_HERE)}")


async def load_into(dsn: str, name: str) -> None:
    """Do as `load` does, in the database at `dsn`."""
    async with connected(dsn) as connection:
        await load(connection, name)

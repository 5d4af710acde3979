"""Filling a store through COPY."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from esx.errors import EsxError, StoreFailed
from esx.layouts.layout import Layout
from esx.layouts.unique_index import find_arbiter
from esx.store.append.refusals import no_arbiter

_MANY = 1000


class ImportedEvent(NamedTuple):
    """An event with its place in its stream and its time already decided. `data` and `metadata` are JSON text."""

    stream_id: str
    stream_seq: int
    event_type: str
    data: str
    metadata: str | None
    created_at: datetime
    event_id: UUID


class StreamTaken(EsxError):
    """An imported event's place in its stream is taken. Nothing was stored."""


async def copy_in(connection: asyncpg.Connection, layout: Layout, rows: Iterable[ImportedEvent]) -> int:
    """Store `rows` in one COPY, all or none, and return how many. Raises StreamTaken."""
    if layout.event_id is None:
        raise EsxError("the events table has no event_id: run `esx init` to add it")
    try:
        async with connection.transaction():
            status = await connection.copy_records_to_table(
                layout.name, schema_name=layout.schema, columns=ImportedEvent._fields, records=rows
            )
            if await find_arbiter(connection, layout) is None:
                raise StoreFailed(no_arbiter(layout))
    except asyncpg.UniqueViolationError as error:
        raise StreamTaken(f"nothing was imported, an event is there already: {error.detail}") from error
    count = int(status.split()[-1])
    if count >= _MANY:
        # Estimates are guesses until autovacuum comes by, a minute or so later.
        await connection.execute(f"ANALYZE {layout.table}")
    return count

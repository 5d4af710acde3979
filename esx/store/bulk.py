"""Filling a store through COPY."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from esx.store.errors import EsxError, StoreFailed
from esx.store.judge import find_judge
from esx.store.refusals import no_judge

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from esx.store.layout import Layout


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
            if await find_judge(connection, layout) is None:
                raise StoreFailed(no_judge(layout))
    except asyncpg.UniqueViolationError as error:
        raise StreamTaken(f"nothing was imported, an event is there already: {error.detail}") from error
    count = int(status.split()[-1])
    if count >= _MANY:
        # Estimates are guesses until autovacuum comes by, a minute or so later.
        await connection.execute(f"ANALYZE {layout.table}")
    return count

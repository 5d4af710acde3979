"""Putting the sample history into a store, once."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from esx.demo import history
from esx.store.bulk import ImportedEvent, StreamTaken

if TYPE_CHECKING:
    from esx.store.store import EventStore


class FillResult(NamedTuple):
    """The history's streams and events, and whether this call put them there."""

    streams: int
    events: int
    created: bool


async def fill(store: EventStore, *, now: datetime | None = None) -> FillResult:
    """Put the sample history into the store unless it is there already.

    It is one COPY, all or nothing, so whatever was interrupted or runs at the same time leaves one whole history.
    What else is in the store stays. Raises StreamTaken if a stream of the history's name is somebody else's.
    """
    there = await _is_there(store)
    # By default the shop keeps the hours of the machine it runs on. In a thread: screens go on meanwhile.
    rows = await asyncio.to_thread(_rows, now or datetime.now().astimezone())
    created = False
    if not there:
        try:
            await store.import_events(rows)
            created = True
        except StreamTaken:
            # Somebody filled it since we looked.
            if not await _is_there(store):
                raise
    return FillResult(len({row.stream_id for row in rows}), len(rows), created)


def _rows(now: datetime) -> list[ImportedEvent]:
    return list(history.generate(now))


async def _is_there(store: EventStore) -> bool:
    first = await store.read_page(history.FIRST_STREAM, limit=1)
    return bool(first) and first[0].event_id == history.event_id(history.FIRST_STREAM, 0)

"""Puts the events of a capsule into a store of their own that programs can use: to read, append and project."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

from esx.capsule.format import EVENTS
from esx.capsule.reading import Capsule
from esx.eventstore import EventStore
from esx.store.bulk.import_ import ImportFailed
from esx.store.recorded.database import recording_database
from esx.text import visible

# What an event of another tool gets that belongs to no stream or has no type; no other may begin with $.
_NO_STREAM, _NO_TYPE, _PREFIX = "no-stream", "no-type", "\\"


@contextlib.asynccontextmanager
async def restored(capsule: Capsule, dsn_for: Callable[[str], str]) -> AsyncIterator[str]:
    """Yield the address of a new database with the tables of esx and all events, for as long as the block lasts.

    `dsn_for` returns the address of a database of the embedded server. Events keep their numbers, ids and times; those
    of another tool's store are taken as an import takes them. Raises BadCapsule and StoreUnavailable.
    """
    async with recording_database(dsn_for) as (database, _):
        dsn = f"{dsn_for(database)}&hostaddr=&service="
        async with EventStore.connect(dsn) as store:
            await store.init()
            own = capsule.info.store == "esx"
            try:
                await store.import_ndjson(
                    _pieces(capsule),
                    faithful=own,
                    renumber=not own,
                    keep_global_seq=not own,
                    no_stream=None if own else _NO_STREAM,
                    no_type=None if own else _NO_TYPE,
                    dollar_prefix=None if own else _PREFIX,
                )
            except ImportFailed as error:
                reason = visible(error.reason, limit=200)
                raise capsule.bad(f"line {error.line} of {EVENTS}: {reason}") from None
        yield dsn


def _pieces(capsule: Capsule) -> Iterator[bytes]:
    # By lines, which have bounds.
    for lines in capsule.lines(EVENTS):
        if lines:
            yield b"\n".join(lines) + b"\n"

"""Message DB's way: its function write_message, with the expected version. It locks the stream's category."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from esx.errors import OutcomeUnknown, StoreFailed
from esx.layouts.layout import Layout
from esx.model import NewEvent, encode_json
from esx.postgres.literals import literal
from esx.postgres.session import Session
from esx.store.appenders.functions import find_function
from esx.store.appenders.protocol import Conflicts
from esx.store.appenders.statement import Lend, StatementAppender

_ARGUMENTS = {
    "id": "varchar",
    "stream_name": "varchar",
    "type": "varchar",
    "data": "jsonb",
    "metadata": "jsonb",
    "expected_version": "bigint",
}


class MessageDbAppender(StatementAppender):
    """Appends by write_message, which takes one message: several are several calls in one transaction."""

    conflicts = Conflicts(messages=("Wrong expected version",))

    @classmethod
    async def open(cls, lend: Lend, session: Session, layout: Layout) -> MessageDbAppender:
        """Return one for the store of this layout. Raises StoreFailed without the function."""
        found = await find_function(session, layout.schema, "write_message")
        if found is None or not set(_ARGUMENTS) <= set(found.arguments):
            raise StoreFailed(
                f"Message DB's function write_message ({', '.join(_ARGUMENTS)}) is not beside {layout.called}: "
                "install it, or append by --append-sql FILE"
            )
        given = ", ".join(f"{name} => ${at}::{kind}" for at, (name, kind) in enumerate(_ARGUMENTS.items(), 1))
        call = f"{found.name}({given})"
        if not found.on_path:
            # It names its tables without their schema. This lasts until the transaction ends.
            path = literal(f"{found.schema}, {session.path}" if session.path else found.schema)
            call = f"CASE WHEN pg_catalog.set_config('search_path', {path}, true) IS NOT NULL THEN {call} END"
        appender = cls(lend, layout, f"SELECT {call}")
        appender.called = found.name
        return appender

    def calls(self, stream_id: str, events: Sequence[NewEvent], version: int | None, /) -> list[list[object]]:
        """Return a call for each event, with the version that the one before leaves."""
        return [
            [
                str(event.event_id),
                stream_id,
                event.event_type,
                encode_json(event.data, index=place, name="data"),
                None if event.metadata is None else encode_json(event.metadata, index=place, name="metadata"),
                None if version is None else version + place,
            ]
            for place, event in enumerate(events)
        ]

    def acknowledged(self, row: asyncpg.Record | None, _: int | None, /) -> int:
        """Return the position that it wrote at."""
        if row is None or row[0] is None:
            raise OutcomeUnknown(f"{self.called} returned no position")
        return int(row[0])

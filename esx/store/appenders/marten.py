"""Marten's way: its function mt_quick_append_events, where the database has it. It takes no expected version.

Its arguments depend on the version and the options of Marten, so they are given by name, as the database tells them.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from esx.errors import OutcomeUnknown, StoreFailed
from esx.layouts.layout import Layout
from esx.model import NewEvent, encode_json
from esx.postgres.session import Session
from esx.store.appenders.functions import find_function
from esx.store.appenders.protocol import Conflicts
from esx.store.appenders.statement import Lend, StatementAppender
from esx.text import visible

_SENT = {
    "stream": "varchar",
    "event_ids": "uuid[]",
    "event_types": "varchar[]",
    "dotnet_types": "varchar[]",
    "bodies": "jsonb[]",
    "headers": "jsonb[]",
}
_FIXED = {
    "stream_type": "NULL::varchar",
    "tenantid": "'*DEFAULT*'::varchar",
    "bdatas": "NULL::bytea[]",
    "causation_ids": "NULL::varchar[]",
    "correlation_ids": "NULL::varchar[]",
    "user_names": "NULL::varchar[]",
    "timestamps": "ARRAY(SELECT pg_catalog.now() FROM pg_catalog.unnest({event_ids}))",
}
_NEEDED = ("stream", "event_ids", "event_types", "bodies")


class MartenAppender(StatementAppender):
    """Appends by mt_quick_append_events, a batch in one call. Two writers at one version meet at a unique index."""

    conflicts = Conflicts(states=frozenset({"23505"}))
    _sent: list[str]

    @classmethod
    async def open(cls, lend: Lend, session: Session, layout: Layout) -> MartenAppender:
        """Return one for the store of this layout. Raises StoreFailed without a function that esx can call."""
        found = await find_function(session, layout.schema, "mt_quick_append_events")
        if found is None:
            raise StoreFailed(
                f"Marten's function mt_quick_append_events is not beside {layout.called}: append by --append-sql FILE"
            )
        missing = [name for name in _NEEDED if name not in found.arguments]
        odd = [name for name in found.arguments if name not in _SENT and name not in _FIXED]
        if missing or odd:
            what = f"has no argument {missing[0]}" if missing else f"has the argument {visible(odd[0], limit=60)}"
            raise StoreFailed(f"{found.name} {what}, so esx cannot call it: append by --append-sql FILE")
        sent = [name for name in found.arguments if name in _SENT]
        places = {name: f"${at}::{_SENT[name]}" for at, name in enumerate(sent, 1)}
        given = (f"{name} => {places.get(name) or _FIXED[name].format(**places)}" for name in found.arguments)
        appender = cls(lend, layout, f"SELECT {found.name}({', '.join(given)})")
        appender.called, appender._sent = found.name, sent
        return appender

    def calls(self, stream_id: str, events: Sequence[NewEvent], _: int | None, /) -> list[list[object]]:
        """Return one call for all events."""
        types = [event.event_type for event in events]
        values: dict[str, object] = {
            "stream": stream_id,
            "event_ids": [event.event_id for event in events],
            "event_types": types,
            "dotnet_types": types,
            "bodies": [encode_json(event.data, index=place, name="data") for place, event in enumerate(events)],
            "headers": [encode_json(each.metadata, index=place, name="metadata") for place, each in enumerate(events)],
        }
        return [[values[name] for name in self._sent]]

    def acknowledged(self, row: asyncpg.Record | None, _: int | None, /) -> int:
        """Return the version: the first number of the answer, before the sequence numbers."""
        if row is None or not row[0]:
            raise OutcomeUnknown(f"{self.called} returned no version")
        return int(row[0][0])

"""The user's own way: the statement of a file, once for each event."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from esx.errors import OutcomeUnknown, StoreFailed
from esx.layouts.layout import Layout
from esx.model import NewEvent, encode_json
from esx.postgres.driver_errors import told
from esx.postgres.session import Session
from esx.store.appenders.append_file import AppendFile
from esx.store.appenders.protocol import Conflict
from esx.store.appenders.statement import Lend, StatementAppender
from esx.text import visible

_INTEGERS = ("int2", "int4", "int8")


class SqlAppender(StatementAppender):
    """Appends by a statement of the user, whose parameters are bound.

    A column `version` of its row is the version that it acknowledges. Without one, that is the one after the expected.
    """

    def __init__(self, lend: Lend, layout: Layout, file: AppendFile, *, tells: bool) -> None:
        super().__init__(lend, layout, file.sql)
        self.conflicts = file.conflicts
        self.called = f"the statement of {file.name}"
        self.tells_version = tells
        self.text = file.text
        self._parameters = file.parameters

    @classmethod
    async def open(cls, lend: Lend, session: Session, layout: Layout, file: AppendFile) -> SqlAppender:
        """Let PostgreSQL check the statement, without running it. Raises StoreFailed, which names the line."""
        try:
            prepared = await session.prepare(file.sql, name="")  # it leaves nothing in the session of a pooler
        except asyncpg.PostgresError as error:
            at = getattr(error, "position", None)
            line = f", line {file.sql.count(chr(10), 0, int(at) - 1) + 1}" if at else ""
            said = visible(told(error), limit=300)
            raise StoreFailed(f"--append-sql {file.name}{line}: PostgreSQL does not accept it: {said}") from None
        returned = {column.name: column.type.name for column in prepared.get_attributes()}
        if file.conflicts.no_row and not returned:
            raise StoreFailed(
                f"--append-sql {file.name}: a conflict is no row, and the statement never returns one: add RETURNING"
            )
        kind = returned.get("version")
        if kind is not None and kind not in _INTEGERS:
            raise StoreFailed(
                f"--append-sql {file.name}: its column version is of type {visible(kind, limit=60)}: return an "
                "integer, or give the column another name"
            )
        return cls(lend, layout, file, tells=kind is not None)

    def calls(self, stream_id: str, events: Sequence[NewEvent], version: int | None, /) -> list[list[object]]:
        """Return a call for each event, with the version that the one before leaves."""
        calls: list[list[object]] = []
        for place, event in enumerate(events):
            values: dict[str, object] = {
                "stream": stream_id,
                "version": None if version is None else version + place,
                "event_id": event.event_id,
                "type": event.event_type,
                "data": encode_json(event.data, index=place, name="data"),
                "metadata": encode_json(event.metadata, index=place, name="metadata"),
            }
            calls.append([values[name] for name in self._parameters])
        return calls

    def acknowledged(self, row: asyncpg.Record | None, version: int | None, /) -> int:
        """Return the version of the row, else the one after the expected; no row may be a conflict."""
        if row is None and self.conflicts.no_row:
            raise Conflict(f"{self.called} returned no row")
        if row is not None and self.tells_version and row["version"] is not None:
            return int(row["version"])
        if version is None:
            raise OutcomeUnknown(f"{self.called} returned no version")
        return version + 1

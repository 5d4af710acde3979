"""Targets for relays that live in one process: a file of lines, and a database of SQLite."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

from esx import TargetPosition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from esx import Event, RelayIdentity


class Lines:
    """A file with a line for each event. It keeps no position: at least once."""

    keeps_position = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._buffer: list[str] = []

    async def open(self, relay: RelayIdentity) -> TargetPosition | None:  # noqa: ARG002
        self._buffer.clear()
        return None

    async def send(self, events: Sequence[Event]) -> None:
        self._buffer += [f"{event.to_json()}\n" for event in events]

    async def commit(self, position: TargetPosition) -> None:  # noqa: ARG002
        with self.path.open("a") as file:
            file.writelines(self._buffer)
        self._buffer.clear()

    async def abort(self) -> None:
        self._buffer.clear()

    async def close(self) -> None:
        self._buffer.clear()


class Sqlite:
    """A database that takes the events and the position in one transaction: exactly once."""

    keeps_position = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    async def open(self, relay: RelayIdentity) -> TargetPosition | None:
        await self.close()
        self._connection = sqlite3.connect(self._path)
        self._connection.execute("CREATE TABLE IF NOT EXISTS taken (stream, version, number)")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS relays (name PRIMARY KEY, position, history, consumer, resent)"
        )
        row = self._connection.execute(
            "SELECT position, history, consumer, resent FROM relays WHERE name = ?", (relay.name,)
        ).fetchone()
        self._name = relay.name
        if row is None:
            return None
        position, history, consumer, resent = row
        return TargetPosition(position, history, consumer, tuple(json.loads(resent)))

    async def send(self, events: Sequence[Event]) -> None:
        assert self._connection is not None
        self._connection.executemany(
            "INSERT INTO taken VALUES (?, ?, ?)",
            [(event.stream_id, event.stream_seq, event.global_seq) for event in events],
        )

    async def commit(self, position: TargetPosition) -> None:
        assert self._connection is not None
        self._connection.execute(
            "INSERT OR REPLACE INTO relays VALUES (?, ?, ?, ?, ?)",
            (self._name, position.position, position.history, position.consumer, json.dumps(position.resent)),
        )
        self._connection.commit()

    async def abort(self) -> None:
        assert self._connection is not None
        self._connection.rollback()

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def taken(self) -> list[tuple[str, int, int]]:
        """Return (stream, version, number) of each event that arrived, in the order of arrival."""
        connection = sqlite3.connect(self._path)
        try:
            return connection.execute("SELECT * FROM taken ORDER BY rowid").fetchall()
        finally:
            connection.close()

"""The databases that the explorer can show: its argument, those of the config file, and the embedded one."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from esx.config import Config, Connection
from esx.database_choice import EMBEDDED, Database, configured, opened, place
from esx.eventstore import EventStore
from esx.layouts.foreign.recognition import FoundStore
from esx.text import counted

_EMBEDDED = "embedded PostgreSQL 18"


@dataclass(frozen=True, slots=True)
class ConnectionChoice:
    """A database that can be chosen: its name, its place, and either of the two values that open it."""

    name: str
    where: str
    database: Database | None = None
    connection: Connection | None = None

    @property
    def configured(self) -> bool:
        """Whether it is a connection of the config file."""
        return self.connection is not None or (self.database is not None and self.database.name is not None)

    @property
    def store(self) -> str | None:
        """The table or view to use instead of `events`, if any."""
        given = self.database or self.connection
        return None if given is None else given.store

    @property
    def embedded(self) -> bool:
        """Whether it is the PostgreSQL that comes with esx."""
        return self.database is not None and self.database.embedded

    @property
    def full_name(self) -> str:
        """Its name and its place."""
        if self.configured:
            return f"{self.name} ({self.where})"
        return self.where if not self.embedded or _EMBEDDED in self.where else f"{self.where} · {_EMBEDDED}"

    @property
    def names(self) -> list[str]:
        """Its full name, then shorter ones."""
        names = [self.full_name, *([_EMBEDDED, "embedded PG 18"] if self.embedded else [self.name])]
        return names if self.store is None else [*(f"{self.store} in {name}" for name in names), self.store]


def _about(store: FoundStore) -> str:
    events = "" if store.rows is None else f" · ~{counted(store.rows, 'event')}"
    return f"{store.kind.title}{events}"


class Connections:
    """Knows the choices, and opens them; the embedded server, once started, runs until `close`."""

    def __init__(self, current: Database, config: Config) -> None:
        named = config.connections.get(current.name or "")
        where = current.label if named is None else place(named.dsn)
        self.current = ConnectionChoice(current.name or current.label, where, current)
        self._held = ExitStack()
        self._embedded: Database | None = current if current.embedded else None
        self.choices = [
            self.current
            if name == current.name
            else ConnectionChoice(name, place(connection.dsn), connection=connection)
            for name, connection in config.connections.items()
        ]
        if named is None:
            self.choices.insert(0, self.current)
        if not current.embedded:
            self.choices.append(ConnectionChoice("embedded", EMBEDDED.label, EMBEDDED))

    def of_stores(self, database: Database, found: Sequence[FoundStore]) -> list[ConnectionChoice]:
        """Return the choices of the stores in the current database, without the one that is shown."""
        return [
            ConnectionChoice(
                store.table.quoted,
                _about(store),
                replace(database, store=store.table.quoted),
            )
            for store in found
            if store.problem is None and (len(found) > 1 or database.store is not None)
        ]

    async def open(self, choice: ConnectionChoice) -> Database:
        """Make a choice the current one, and return its database, ready for connections; raises EsxError."""
        self.current = choice
        if choice.connection is not None:
            return configured(choice.connection, os.environ)
        assert choice.database is not None
        if not choice.embedded or choice.database.dsn is not None:
            return choice.database
        if self._embedded is None:
            starting = asyncio.to_thread(self._held.enter_context, opened(choice.database, os.environ))
            # Shielded from cancellation: a server that was started must be stopped.
            self._embedded = await asyncio.shield(asyncio.ensure_future(starting))
            async with EventStore.connect(self._embedded.dsn) as store:
                if not await store.has_schema() and await store.beside() is None:
                    await store.init()
        return self._embedded

    async def close(self) -> None:
        """Stop the embedded server, if it was started here and no other process uses it."""
        await asyncio.to_thread(self._held.close)

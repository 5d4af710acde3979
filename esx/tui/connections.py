"""The databases that the explorer can show: the one it was opened on, those of the config file, the embedded one."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esx.database import EMBEDDED, Database, configured, opened, place
from esx.store import EventStore

if TYPE_CHECKING:
    from esx.config import Config, Connection


@dataclass(frozen=True, slots=True)
class Choice:
    """A database that can be chosen: what to call it, where it is, and one of the two that open it."""

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
        """The table or view to use instead of events, None for events."""
        given = self.database or self.connection
        return None if given is None else given.store

    @property
    def embedded(self) -> bool:
        """Whether it is the PostgreSQL that comes with esx."""
        return self.database is not None and self.database.embedded


class Connections:
    """Knows the choices, and opens them; the embedded server, once started, runs until `close`."""

    def __init__(self, current: Database, config: Config) -> None:
        self.current = Choice(current.name or current.label, current.label, current)
        self._held = ExitStack()
        self._embedded: Database | None = current if current.embedded else None
        self.choices = [
            Choice(name, place(connection.dsn), connection=connection)
            for name, connection in config.connections.items()
        ]
        if current.name in config.connections:
            self.current = Choice(current.name or "", place(config.connections[current.name or ""].dsn), current)
            self.choices = [self.current if each.name == current.name else each for each in self.choices]
        else:
            self.choices.insert(0, self.current)
        if not current.embedded:
            self.choices.append(Choice("embedded", EMBEDDED.label, EMBEDDED))

    async def open(self, choice: Choice) -> Database:
        """Return the database of a choice, which becomes the current one, ready to be connected to.

        Raises EsxError.
        """
        self.current = choice
        if choice.connection is not None:
            return configured(choice.connection, os.environ)
        assert choice.database is not None
        if not choice.embedded or choice.database.dsn is not None:
            return choice.database
        if self._embedded is None:
            starting = asyncio.to_thread(self._held.enter_context, opened(choice.database, os.environ))
            # Not to be cut short: a server that was started must be stopped.
            self._embedded = await asyncio.shield(asyncio.ensure_future(starting))
            async with EventStore.connect(self._embedded.dsn) as store:
                if not await store.has_schema():
                    await store.init()
        return self._embedded

    async def close(self) -> None:
        """Give back the embedded server, if it was started here."""
        await asyncio.to_thread(self._held.close)

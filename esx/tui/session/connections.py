"""The databases that the explorer can show: its argument, those of the config file, and the embedded one."""

import asyncio
import contextlib
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from esx.config import BadConfig, Config, Connection, add_connection
from esx.database_choice import EMBEDDED, TYPED, Database, beside, configured, meant, opened, place
from esx.eventstore import EventStore
from esx.layouts.foreign.recognition import FoundStore
from esx.libpq.address import parse
from esx.libpq.parameters import SECRETS
from esx.libpq.passfile import SOCKET_DIRECTORIES
from esx.libpq.service import services
from esx.text import counted

_EMBEDDED = "embedded PostgreSQL 18"
_NAMED = re.compile(r"(.*\S)\s+as\s+([A-Za-z0-9_][A-Za-z0-9_.-]*)")


def local_servers(directories: Sequence[str] = SOCKET_DIRECTORIES) -> list[tuple[str, int]]:
    """Return the directory and the port of each PostgreSQL that listens on a socket on this machine."""
    found: dict[tuple[str, int], None] = {}
    for directory in dict.fromkeys(os.path.realpath(each) for each in directories):
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(directory))
            found |= {(directory, int(name[9:])): None for name in names if re.fullmatch(r"\.s\.PGSQL\.\d{1,5}", name)}
    return list(found)


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
        self._config = config
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

    async def typed(self, text: str) -> ConnectionChoice:
        """Return the choice that a typed address or name means, after a try; ``ADDRESS as NAME`` saves it.

        Raises EsxError, if it is no address, if the database cannot be reached, or if it cannot be saved.
        """
        named = _NAMED.fullmatch(text.strip())
        address, name = (named[1], named[2]) if named else (text.strip(), None)
        database = meant(address, TYPED, os.environ, self._config)
        if name is None and (database.embedded or database.name is not None):
            wanted = database.name or "embedded"
            return next((each for each in self.choices if each.name == wanted), self.current)
        if database.dsn is None:
            raise BadConfig("the embedded database has a name already: embedded")
        shown = place(database.dsn)
        async with EventStore.connect(database.dsn, read_only=True, application_name="esx explorer") as store:
            await store.has_schema()
        connection = Connection(shown, database.dsn)
        if name is not None:
            if parse(database.dsn).keys() & SECRETS:
                raise BadConfig("passwords are not saved: leave it to ~/.pgpass, or type the address without as NAME")
            written = address if "://" in address or "=" in address else database.dsn
            connection = await asyncio.to_thread(add_connection, self._config, name, written)
        choice = ConnectionChoice(connection.name, shown, connection=connection)
        self.choices.append(choice)
        return choice

    def on_this_machine(self) -> list[ConnectionChoice]:
        """Return the choices of libpq's services and of the servers that listen on a socket here."""
        found = [
            ConnectionChoice(
                f"service {name}", place(f"service={name}"), connection=Connection(name, f"service={name}")
            )
            for name in services(os.environ)
            if re.fullmatch(r"[\w.-]+", name)
        ]
        for directory, port in local_servers():
            dsn = f"host={directory} port={port}"
            found.append(ConnectionChoice(f"server on port {port}", place(dsn), connection=Connection(str(port), dsn)))
        known = {choice.where for choice in self.choices}
        return [choice for choice in found if choice.where not in known]

    def of_server(self, database: Database, names: Sequence[str]) -> list[ConnectionChoice]:
        """Return the choices of the other databases of the current one's server."""
        others = [beside(database, name) for name in names]
        return [ConnectionChoice(name, other.label, other) for name, other in zip(names, others, strict=True)]

    def of_stores(self, database: Database, found: Sequence[FoundStore], *, shown: bool) -> list[ConnectionChoice]:
        """Return the choices of the stores in the current database; none if its only store is the one `shown`."""
        return [
            ConnectionChoice(
                store.table.quoted,
                _about(store),
                replace(database, store=store.table.quoted),
            )
            for store in found
            if store.problem is None and (len(found) > 1 or database.store is not None or not shown)
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

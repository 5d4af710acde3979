"""Connections: how they are opened, and what they are called."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.protocol.protocol import BaseProtocol

from esx.libpq.address import Odd, parse
from esx.libpq.parameters import BadParameter
from esx.libpq.target import Target, gather, resolve_dsn
from esx.store.dialling import dial
from esx.store.driver import DRIVER_ERRORS, first_line
from esx.store.errors import StoreFailed, StoreUnavailable
from esx.store.model import Notification
from esx.store.pool import Pool
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from datetime import datetime

    from asyncpg.prepared_stmt import PreparedStatement

_EXAMINATION = 1.0
_GLANCES = 5
_ONE_ROW = "SELECT 1"
_CLOSE_PATIENCE = 1.0
# Of what a small append costs the client, asyncpg's layers above its protocol are an eighth. What they do besides, such
# as reading the schema anew for composite types, no statement here needs. The protocol is no public interface: an
# asyncpg whose method is another is used from above.
_BELOW = ("self", "state", "args", "portal_name", "limit", "return_extra", "timeout")
_DIRECT = tuple(inspect.signature(BaseProtocol.bind_execute).parameters) == _BELOW


def describe(dsn: str | None) -> str:
    """Return ``user@host:port/database`` for messages: never a password. None stands for libpq's variables."""
    try:
        return gather(parse(dsn) if dsn is not None else {}, os.environ).label()
    except (Odd, BadParameter):
        return "the address"


class Session(asyncpg.Connection):
    """A connection.

    `server_started` tells which run of which server it belongs to, `standby` whether that was a hot standby then; both
    are None behind a pooler. A `limited` one turns away
    from statements that take too long by itself. It keeps what it runs again and again prepared: asyncpg does so too,
    but spends a tenth of a small append on finding the statement. `kept` is None where nothing may stay in a session.
    `asked` are the settings that its user has asked for, by name.
    """

    __slots__ = ("asked", "kept", "limited", "server_started", "standby")
    asked: Mapping[str, str]
    kept: dict[str, tuple[PreparedStatement[asyncpg.Record], Any]] | None
    limited: bool
    server_started: datetime | None
    standby: bool | None
    _protocol: Any
    _server_caps: Any
    _top_xact: Any

    async def repeat(self, query: str, *arguments: object) -> asyncpg.Record | None:
        """Run a query of at most one row that is run again and again, and return that row or None."""
        kept = self.kept
        if kept is None:
            return await self.fetchrow(query, *arguments)
        found = kept.get(query)
        if found is None:
            statement = await self.prepare(query)
            found = kept[query] = (statement, getattr(statement, "_state", None) if _DIRECT else None)
        statement, state = found
        try:
            protocol = self._protocol
            if state is None or protocol is None:  # terminated: asyncpg says so
                return await statement.fetchrow(*arguments)
            rows: list[asyncpg.Record] = await protocol.bind_execute(state, arguments, "", 0, False, None)
            return rows[0] if rows else None
        except asyncpg.InvalidCachedStatementError:
            # The table was altered meanwhile: nothing was run.
            kept.clear()
            if self.is_in_transaction():
                raise
            return await self.fetchrow(query, *arguments)

    async def copy_from_query(self, *what: Any, **how: Any) -> str:
        """Do as asyncpg does."""
        return await self._copied(super().copy_from_query(*what, **how))

    async def copy_to_table(self, *what: Any, **how: Any) -> str:
        """Do as asyncpg does."""
        return await self._copied(super().copy_to_table(*what, **how))

    async def copy_records_to_table(self, *what: Any, **how: Any) -> str:
        """Do as asyncpg does."""
        return await self._copied(super().copy_records_to_table(*what, **how))

    async def _copied(self, copying: Coroutine[Any, Any, str]) -> str:
        try:
            return await copying
        except asyncpg.InternalClientError:
            # The server has said that it ends the session, and has not done so yet. asyncpg then gives up a future
            # that it has not begun to wait for, and terminated, would leave its failure to nobody.
            with contextlib.suppress(*DRIVER_ERRORS, OSError):
                await self.close(timeout=_CLOSE_PATIENCE)
            raise


@dataclass(frozen=True, slots=True)
class Pooler:
    """A connection pooler before PostgreSQL. `certain`: a connection was seen to change or share its session.

    Otherwise it may as well keep a session for each connection; what is done is right then too, only slower.
    """

    certain: bool

    def __str__(self) -> str:
        if self.certain:
            return "a connection pooler lends sessions for one transaction at a time"
        return "a connection pooler stands before PostgreSQL, and may lend sessions for one transaction at a time"


class Connector:
    """Opens all connections of a store, as the store needs them.

    Behind a pooler in transaction mode, such as PgBouncer's, each transaction may run in another session, which other
    clients use too: there no statement is kept prepared, and nothing is set for a session. Such a pooler shows in
    the process id that it makes up. `pooler` is known once something was opened.
    """

    def __init__(self, dsn: str | None, application_name: str, *, timeout: float = 10.0) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self.timeout = timeout
        self.where = describe(dsn)
        self.pooler: Pooler | None = None

    async def open(
        self, role: str = "", *, settings: Mapping[str, str] | None = None, limit: float | None = None
    ) -> Session:
        """Open a connection; `settings` are for its session, and left out behind a pooler.

        There `limit` is kept instead, in seconds: from a statement that takes longer it turns away, with TimeoutError.

        Raises the driver's errors, TimeoutError among them.
        """
        opening = asyncio.ensure_future(self._open(role, settings or {}, limit))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Cut short while it connects, asyncpg would leave a future behind whose failure nobody hears of.
            opening.add_done_callback(_abandon)
            raise

    async def _open(self, role: str, settings: Mapping[str, str], limit: float | None) -> Session:
        target = self._target()
        async with asyncio.timeout(self._limit(target)):
            if self.pooler is None:
                connection = await self._connect(target, role, keep_statements=True)
                try:
                    if await _own_session(connection, settings):
                        row = await connection.fetchrow("SELECT pg_postmaster_start_time(), pg_is_in_recovery()")
                        assert row is not None
                        connection.server_started, connection.standby = row
                        return connection
                    self.pooler = await self._examine(target, connection)
                except BaseException:
                    connection.terminate()
                    raise
                connection.terminate()
            return await self._connect(target, role, keep_statements=False, limit=limit or None)

    async def _connect(
        self, target: Target, role: str, *, keep_statements: bool, limit: float | None = None
    ) -> Session:
        # Of what may be set at the start, PgBouncer takes little more than this name.
        name = f"{target.application_name or self._application_name} {role}".rstrip()
        try:
            connection = await dial(
                target,
                Session,
                application_name=name,
                timeout=self.timeout,
                statement_cache_size=100 if keep_statements else 0,
                command_timeout=limit,
            )
        except BadParameter as error:
            raise StoreUnavailable(str(error)) from None
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            if not target.warnings:
                raise
            why = "; ".join(target.warnings)
            raise StoreUnavailable(f"cannot reach {self.where}: {first_line(error)} ({why})") from error
        connection.asked = target.asked
        connection.server_started = connection.standby = None
        connection.limited = limit is not None
        connection.kept = {} if keep_statements else None
        if not keep_statements:
            # To look up a type, asyncpg would turn it off for the session, and on again in whatever session comes next.
            connection._server_caps = connection._server_caps._replace(jit=False)
        return connection

    def _target(self) -> Target:
        """Return where to go, as the files say it now: a password may have changed."""
        try:
            target = resolve_dsn(self._dsn, os.environ)
        except BadParameter as error:
            raise StoreUnavailable(str(error)) from None
        _refuse_isolation(target)
        return target

    def _limit(self, target: Target) -> float | None:
        """Return how long connecting may take, in seconds; None for as long as it takes."""
        if target.connect_timeout is None:
            return self.timeout
        return target.connect_timeout * 2 * len(target.hosts) + _EXAMINATION if target.connect_timeout else None

    def called(self, application_name: str) -> str:
        """Return what sessions are called that were to have this name, where the user has given one."""
        return self._target().application_name or application_name

    async def _examine(self, target: Target, first: Session) -> Pooler:
        """Look whether a connection moves to another session, or two that are open get the same one."""
        second = None
        try:
            # Where each connection keeps its session, there may be none left for a second one.
            async with asyncio.timeout(_EXAMINATION):
                second = await self._connect(target, "", keep_statements=False)
                known = None
                for _ in range(_GLANCES):
                    pid = await second.fetchval("SELECT pg_backend_pid()")
                    if known not in (None, pid) or await _has_pid(first, pid):
                        return Pooler(certain=True)
                    known = pid
        except TimeoutError:
            pass
        finally:
            if second is not None:
                second.terminate()
        return Pooler(certain=False)


def _abandon(opening: asyncio.Future[Session]) -> None:
    """Close what was opened for somebody who is no longer there."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().terminate()


async def _own_session(connection: Session, settings: Mapping[str, str]) -> bool:
    """Apply settings to the session and return True, or leave it alone if it is not the connection's own."""
    # Under the stricter levels a lost race would be a serialization failure, and a lock would wait for nothing.
    wanted = {"default_transaction_isolation": "read committed", **settings}
    values = {name: f"'{value}'" for name, value in wanted.items()}
    if "statement_timeout" in wanted:
        values["statement_timeout"] = limit_within(connection, "statement_timeout", int(wanted["statement_timeout"]))
    made = ", ".join(f"set_config('{name}', {value}, false)" for name, value in values.items())
    # The simple protocol: a prepared statement would stay behind in the session.
    return await connection.execute(f"SELECT {made} WHERE pg_backend_pid() = {connection.get_server_pid()}") == _ONE_ROW


def limit_within(connection: asyncpg.Connection, name: str, milliseconds: int) -> str:
    """Return as SQL how long something may take: what esx wants, 0 for no limit, or the user's own limit if shorter."""
    if name not in getattr(connection, "asked", {}):
        return f"'{milliseconds}'"
    return (
        f"(SELECT CASE WHEN reset_val::int8 BETWEEN 1 AND {milliseconds or 2**31 - 1} THEN reset_val "
        f"ELSE '{milliseconds}' END FROM pg_settings WHERE name = '{name}')"
    )


def _refuse_isolation(target: Target) -> None:
    """Raise StoreFailed for a level of isolation that the user has asked for and that esx cannot work at."""
    for name in ("default_transaction_isolation", "transaction_isolation"):
        level = target.asked.get(name, "read committed").strip("'\" ").lower()
        if level not in ("read committed", "read uncommitted"):
            raise StoreFailed(
                f"{name} is set to {visible(level, limit=40)} by the address or PGOPTIONS, but esx works at read "
                "committed only: leave it out"
            )


async def _has_pid(connection: Session, pid: int) -> bool:
    return await connection.execute(f"SELECT 1 WHERE pg_backend_pid() = {pid}") == _ONE_ROW


async def open_pool(
    connector: Connector,
    *,
    size: int,
    read_only: bool,
    statement_timeout: float | None,
    notification: Notification,
) -> Pool:
    """Open a pool of at most `size` connections, one of them now.

    Raises StoreUnavailable if the database cannot be reached in time, and StoreFailed for what a pooler makes
    impossible.
    """
    settings: dict[str, str] = {}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    if statement_timeout is not None:
        settings["statement_timeout"] = str(round(statement_timeout * 1000))
    if notification is not Notification.DOORBELL:
        settings["esx.notification"] = notification.value

    async def another() -> Session:
        return await connector.open(settings=settings, limit=statement_timeout)

    pool = Pool(another, size, connector.where)
    try:
        async with pool.lend() as connection:
            if connector.pooler is not None:
                await _refuse_behind_a_pooler(connection, connector, read_only=read_only, notification=notification)
            return pool
    except BaseException as error:
        pool.terminate()
        if isinstance(error, ValueError | OverflowError):
            raise StoreUnavailable(
                f"{connector.where} is not usable as it is: {type(error).__name__} "
                "(expected postgresql://user@host:port/database)"
            ) from error
        raise


async def _refuse_behind_a_pooler(
    connection: asyncpg.Connection, connector: Connector, *, read_only: bool, notification: Notification
) -> None:
    """Raise StoreFailed for what needs a session of its own."""
    if notification is not Notification.DOORBELL:
        raise StoreFailed(
            f"notification {notification.value!r} is a setting of the session, but at {connector.where} "
            f"{connector.pooler}: connect to PostgreSQL itself"
        )
    isolation = await connection.fetchval("SELECT current_setting('transaction_isolation')")
    if isolation != "read committed" and not read_only:
        raise StoreFailed(
            f"transactions at {connector.where} are {isolation}, and as {connector.pooler}, esx cannot change that: "
            "ALTER ROLE or ALTER DATABASE ... SET default_transaction_isolation = 'read committed', or connect to "
            "PostgreSQL itself"
        )

"""Opening connections, and pools of them."""

import asyncio
import os
from collections.abc import Mapping
from functools import partial

import asyncpg

from esx.errors import StoreFailed, StoreUnavailable
from esx.libpq.address import Odd, parse
from esx.libpq.parameters import BadParameter
from esx.libpq.target import Target, gather, resolve_dsn
from esx.model import Notification
from esx.postgres.driver_errors import first_line, is_cancelled, login_refused
from esx.postgres.driver_internals import know_arrays, look_up_types_with_jit
from esx.postgres.hosts import dial
from esx.postgres.pool import Pool
from esx.postgres.pooler import EXAMINATION, Pooler, apply_if_own, examine, refuse_behind_a_pooler
from esx.postgres.session import Session
from esx.postgres.timings import Timings
from esx.text import visible

_CANCELLED_OPENINGS = 3
"""How often a connection is opened again because a statement of the opening was cancelled."""


def describe(dsn: str | None) -> str:
    """Return ``user@host:port/database`` for messages, without a password. None stands for libpq's variables."""
    try:
        return gather(parse(dsn) if dsn is not None else {}, os.environ).label()
    except (Odd, BadParameter):
        return "the address"


class Connector:
    """Opens all connections of a store.

    Behind a pooler in transaction mode, such as PgBouncer, each transaction may run in another session, which other
    clients use too: there no statement stays prepared, and nothing is set for a session. esx notices such a pooler by
    the process id that it makes up.

    `timeout` is how many seconds connecting may take, if the address does not say it, and how long a connection may be
    silent.
    """

    pooler: Pooler | None
    """The pooler, if one was noticed when a connection was opened."""

    def __init__(
        self, dsn: str | None, application_name: str, *, timeout: float = 10.0, timings: Timings | None = None
    ) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self.timeout = timeout
        self.where = describe(dsn)
        self.timings = timings or Timings()
        self.pooler = None

    async def open(
        self, role: str = "", *, settings: Mapping[str, str] | None = None, limit: float | None = None
    ) -> Session:
        """Open a connection. `role` becomes part of its application_name.

        `settings` are set in its session. Behind a pooler they are left out; instead, the driver gives up a statement
        that takes longer than `limit` seconds, with TimeoutError.

        Raises the driver's errors, OSError, TimeoutError, and StoreUnavailable and StoreFailed for an address that
        cannot be used.
        """
        opening = asyncio.ensure_future(self._open(role, settings or {}, limit))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Cancelled while it connects, asyncpg would leave a future whose exception is never retrieved.
            opening.add_done_callback(_abandon)
            raise

    async def _open(self, role: str, settings: Mapping[str, str], limit: float | None) -> Session:
        target = self._target()
        async with asyncio.timeout(self._limit(target)):
            for _ in range(_CANCELLED_OPENINGS):
                try:
                    return await self._open_once(target, role, settings, limit)
                except asyncpg.PostgresError as error:
                    # On a standby the replay may cancel any statement.
                    if not is_cancelled(error):
                        raise
            return await self._open_once(target, role, settings, limit)

    async def _open_once(self, target: Target, role: str, settings: Mapping[str, str], limit: float | None) -> Session:
        if self.pooler is None:
            connection = await self._connect(target, role, keep_statements=True)
            try:
                if await apply_if_own(connection, settings):
                    await connection.learn()
                    return connection
                self.pooler = await examine(connection, partial(self._connect, target, "", keep_statements=False))
            except BaseException:
                connection.terminate()
                raise
            connection.terminate()
        connection = await self._connect(target, role, keep_statements=False, limit=limit or None)
        try:
            connection.path = await connection.fetchval("SELECT pg_catalog.current_setting('search_path')")
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _connect(
        self, target: Target, role: str, *, keep_statements: bool, limit: float | None = None
    ) -> Session:
        # PgBouncer takes few parameters at the start besides this name.
        name = f"{target.application_name or self._application_name} {role}".rstrip()
        try:
            connection = await dial(
                target,
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
            raise login_refused(self.where, f"{first_line(error)} ({why})") from error
        connection.asked = target.asked
        connection.limited = limit is not None
        connection.kept = {} if keep_statements else None
        know_arrays(connection)
        if not keep_statements:
            look_up_types_with_jit(connection)
        return connection

    def _target(self) -> Target:
        """Return the target, with files read again, as a password may have changed."""
        try:
            target = resolve_dsn(self._dsn, os.environ)
        except BadParameter as error:
            raise StoreUnavailable(str(error)) from None
        _refuse_isolation(target)
        return target

    def _limit(self, target: Target) -> float | None:
        """Return how many seconds connecting may take; None for no limit."""
        if target.connect_timeout is None:
            return self.timeout
        return target.connect_timeout * 2 * len(target.hosts) + EXAMINATION if target.connect_timeout else None

    def called(self, application_name: str) -> str:
        """Return the application_name of sessions: the user's, or this one if the user has given none."""
        return self._target().application_name or application_name


def _abandon(opening: asyncio.Future[Session]) -> None:
    """Close a connection that its caller no longer waits for."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().terminate()


def _refuse_isolation(target: Target) -> None:
    """Raise StoreFailed if the user has set a level of isolation at which esx cannot work."""
    for name in ("default_transaction_isolation", "transaction_isolation"):
        level = target.asked.get(name, "read committed").strip("'\" ").lower()
        if level not in ("read committed", "read uncommitted"):
            raise StoreFailed(
                f"{name} is set to {visible(level, limit=40)} by the address or PGOPTIONS, but esx works at read "
                "committed only: leave it out"
            )


async def open_pool(
    connector: Connector,
    *,
    size: int,
    read_only: bool,
    statement_timeout: float | None,
    notification: Notification,
) -> Pool:
    """Open a pool of at most `size` connections, one of them now. `statement_timeout` is in seconds.

    Raises StoreUnavailable if the database cannot be reached in time, and StoreFailed for what a pooler makes
    impossible.
    """
    settings: dict[str, str] = {}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    if statement_timeout is not None:
        settings["statement_timeout"] = str(round(statement_timeout * 1000))
    if (notification := Notification(notification)) is not Notification.DOORBELL:
        settings["esx.notification"] = notification.value

    connect = partial(connector.open, settings=settings, limit=statement_timeout)
    pool = Pool(connect, size, connector.where, read_only=read_only, timings=connector.timings)
    try:
        async with pool.lend() as connection:
            if connector.pooler is not None:
                await refuse_behind_a_pooler(
                    connection, connector.pooler, connector.where, read_only=read_only, notification=notification
                )
            return pool
    except BaseException as error:
        pool.terminate()
        if isinstance(error, ValueError | OverflowError):
            raise StoreUnavailable(
                f"{connector.where} is not usable as it is: {type(error).__name__} "
                "(expected postgresql://user@host:port/database)"
            ) from error
        raise

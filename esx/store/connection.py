"""Connections: how they are opened, and what they are called."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from asyncpg.protocol.protocol import BaseProtocol
from asyncpg.transaction import Transaction

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
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from datetime import datetime

    from asyncpg.prepared_stmt import PreparedStatement

_EXAMINATION = 1.0
_GLANCES = 5
_ONE_ROW = "SELECT 1"
_RUN = "pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_is_in_recovery()"
_RESTRICTED = "restrict_nonsystem_relation_kind"
# Under these PostgreSQL spells names and values as esx reads them, whatever the role or the database say.
_GUARDED = {
    "search_path": "",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "bytea_output": "hex",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
}
_ENDED_BY = ("idle_in_transaction_session_timeout", "transaction_timeout")
_CLOSE_PATIENCE = 1.0
# Of what a small append costs the client, asyncpg's layers above its protocol are an eighth. What they do besides, such
# as reading the schema anew for composite types, no statement here needs. The protocol is no public interface: an
# asyncpg whose method is another is used from above.
_BELOW = ("self", "state", "args", "portal_name", "limit", "return_extra", "timeout")
_DIRECT = tuple(inspect.signature(BaseProtocol.bind_execute).parameters) == _BELOW


T = TypeVar("T")


def describe(dsn: str | None) -> str:
    """Return ``user@host:port/database`` for messages: never a password. None stands for libpq's variables."""
    try:
        return gather(parse(dsn) if dsn is not None else {}, os.environ).label()
    except (Odd, BadParameter):
        return "the address"


class Session(asyncpg.Connection):
    """A connection.

    It resolves names in one of two ways, between which `resolve` switches. As found, it is the user's: search_path is
    what the server, the role or the address say, as triggers and the code of applications may need. Else it is
    guarded: only what is in pg_catalog is found without its schema, and spelling is what esx expects, so that nobody
    can put a function or an operator of his own in the place of one that a query means (CVE-2018-1058; pg_dump does
    the same). `path` is the user's search_path.

    `server_started` tells which run of which server it belongs to, `standby` whether that was a hot standby then;
    behind a pooler both tell of the transaction under way, once that is guarded. A `limited` one turns away
    from statements that take too long by itself. It keeps what it runs again and again prepared: asyncpg does so too,
    but spends a tenth of a small append on finding the statement. `kept` is None where nothing may stay in a session.
    `asked` are the settings that its user has asked for, by name.
    """

    __slots__ = (
        "_group",
        "_relaxed",
        "asked",
        "depth",
        "group_until",
        "guarded",
        "kept",
        "limited",
        "may_rest",
        "path",
        "resting",
        "restricted",
        "rests_since",
        "rewrite",
        "server_started",
        "standby",
    )
    asked: Mapping[str, str]
    path: str
    guarded: bool
    restricted: str
    group_until: float
    """When its group is to end at the latest, by the monotonic clock."""
    rests_since: float
    may_rest: bool
    """Whether a group may wait for its next query: not where the server ends transactions within less than a second."""
    resting: asyncio.TimerHandle | None
    """What looks whether its group has been idle, while there is one."""
    rewrite: Callable[[str], str] | None
    """What each query is changed by before it is sent; see `esx.store.strange`."""
    kept: dict[str, tuple[PreparedStatement[asyncpg.Record], Any]] | None
    limited: bool
    server_started: datetime | None
    standby: bool | None
    _group: bool | None
    """Whether a group of queries is READ ONLY, None while there is none."""
    depth: int
    """How many transactions of others are open within the group."""
    _relaxed: Mapping[str, str]
    _protocol: Any
    _server_caps: Any
    _top_xact: Any

    async def repeat(self, query: str, *arguments: object) -> asyncpg.Record | None:
        """Run a query of at most one row that is run again and again, and return that row or None."""
        kept = self.kept
        if kept is None:
            return await self.fetchrow(query, *arguments)
        if self.rewrite is not None:
            query = self.rewrite(query)
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
            if not self.is_in_transaction():
                return await self.fetchrow(query, *arguments)
            if not await self.recover():
                raise
            return await self.fetchrow(query, *arguments)

    async def resolve(self, *, guarded: bool, restricted: str = "") -> None:
        """Find names in pg_catalog alone, or as the user does.

        Behind a pooler, where a session is not ours, the first needs a transaction, and ends with it. `restricted` are
        the kinds of relations that may not be read in a guarded one, as restrict_nonsystem_relation_kind has them.
        """
        if guarded and (not self.guarded or self.restricted != restricted):
            self.guarded, self.restricted = True, restricted
            guard = ", ".join(_guard(restricted, local=self.kept is None))
            if self.kept is not None:
                await self.execute(f"SELECT {guard}")
            else:  # where a pooler leads to may change from one transaction to the next
                row = await super().fetchrow(f"SELECT {_RUN}, {guard}")
                assert row is not None
                self.server_started, self.standby = row[:2]
        elif self.guarded and not guarded:
            self.guarded = False
            relaxed = {**self._relaxed, **({_RESTRICTED: ""} if self.restricted else {})}
            self.restricted = ""
            await self.execute(_settings(relaxed))

    async def read_views(self) -> None:
        """Let views of the database be read until the transaction ends."""
        if "view" in self.restricted:
            kinds = self.restricted.replace("view, ", "").replace("view", "")
            await self.execute(f"SELECT {_setting(_RESTRICTED, kinds, local=True)}")

    def as_user(self) -> list[str]:
        """Return the expressions that let names be found as the user does until the transaction ends."""
        if not self.guarded:
            return []
        return [_setting(name, value, local=True) for name, value in self._relaxed.items() if value != _GUARDED[name]]

    async def begin(self, *, read_only: bool) -> None:
        """Begin a transaction for a group of queries, each of which sees what is committed when it begins."""
        self._group, self.depth = read_only, 0
        await super().transaction(isolation="read_committed", readonly=read_only).start()

    async def end(self, *, commit: bool = False) -> None:
        """End the group of queries that `begin` began, whatever has become of it, and be usable again."""
        await self.execute("COMMIT" if commit else "ROLLBACK")
        self._group = self._top_xact = None
        self.transaction_ends()

    def transaction_ends(self) -> None:
        """Take note that a transaction ends, and with it what was set for it."""
        if self.kept is None:
            self.guarded, self.restricted = False, ""

    @property
    def rests(self) -> bool:
        """Whether its transaction is that of a group which can go on."""
        return self._group is not None and not self.depth

    @property
    def in_group(self) -> bool:
        """Whether a group of queries has begun and not ended."""
        return self._group is not None

    def transaction(self, **how: Any) -> Transaction:
        """Do as asyncpg does: within a group that is a savepoint."""
        return _Within(self, how.get("isolation"), how.get("readonly", False), how.get("deferrable", False))

    async def recover(self) -> bool:
        """Begin a group of queries anew, as after one has failed, and return whether that can be done."""
        if self._group is None or self.depth:
            return False
        await self._begin_anew()
        return True

    async def fetch(self, *what: Any, **how: Any) -> Any:
        """Do as asyncpg does."""
        return await self._anew(super().fetch, *what, **how)

    async def fetchrow(self, *what: Any, **how: Any) -> asyncpg.Record | None:  # type: ignore[override]
        """Do as asyncpg does."""
        return await self._anew(super().fetchrow, *what, **how)

    async def fetchval(self, *what: Any, **how: Any) -> Any:
        """Do as asyncpg does."""
        return await self._anew(super().fetchval, *what, **how)

    async def prepare(self, query: str, **how: Any) -> PreparedStatement[asyncpg.Record]:  # type: ignore[override]
        """Do as asyncpg does."""
        return await super().prepare(query if self.rewrite is None else self.rewrite(query), **how)

    async def _anew(self, query: Callable[..., Awaitable[T]], *what: Any, **how: Any) -> T:
        """Run a query, in a group once more if the table was altered meanwhile. Outside of one asyncpg does that."""
        if self.rewrite is not None:
            what = (self.rewrite(what[0]), *what[1:])
        try:
            return await query(*what, **how)
        except (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError):
            if not await self.recover():
                raise
            return await query(*what, **how)

    async def _begin_anew(self) -> None:
        assert self._group is not None
        read_only, guarded, restricted = self._group, self.guarded, self.restricted
        await self.end()
        await self.begin(read_only=read_only)
        await self.resolve(guarded=guarded, restricted=restricted)

    async def copy_from_query(self, *what: Any, **how: Any) -> str:
        """Do as asyncpg does."""
        if self.rewrite is not None:
            what = (self.rewrite(what[0]), *what[1:])
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


class _Within(Transaction):
    """A transaction of asyncpg's that its session knows of while it is open."""

    _connection: Session

    async def start(self) -> None:
        await super().start()
        self._connection.depth += 1

    async def __aexit__(self, *what: Any) -> None:
        try:
            await super().__aexit__(*what)
        finally:
            self._connection.depth -= 1

    async def commit(self) -> None:
        try:
            await super().commit()
        finally:
            self._connection.depth -= 1

    async def rollback(self) -> None:
        try:
            await super().rollback()
        finally:
            self._connection.depth -= 1


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
                        await _learn(connection)
                        return connection
                    self.pooler = await self._examine(target, connection)
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
        connection.guarded, connection.path, connection.restricted = False, "", ""
        connection._relaxed, connection._group, connection.depth = {}, None, 0
        connection.group_until, connection.rests_since, connection.resting = 0.0, 0.0, None
        connection.rewrite = None
        connection.may_rest = True
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
                    pid = await second.fetchval("SELECT pg_catalog.pg_backend_pid()")
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
    values = {name: quoted(value) for name, value in wanted.items()}
    if "statement_timeout" in wanted:
        values["statement_timeout"] = limit_within(connection, "statement_timeout", int(wanted["statement_timeout"]))
    made = ", ".join(f"pg_catalog.set_config({quoted(name)}, {value}, false)" for name, value in values.items())
    # The simple protocol: a prepared statement would stay behind in the session.
    return await connection.execute(f"SELECT {made} WHERE {_is_pid(connection.get_server_pid())}") == _ONE_ROW


def limit_within(connection: asyncpg.Connection, name: str, milliseconds: int) -> str:
    """Return as SQL how long something may take: what esx wants, 0 for no limit, or the user's own limit if shorter.

    It is for sessions that are not guarded yet, too.
    """
    if name not in getattr(connection, "asked", {}):
        return f"'{milliseconds}'"
    return (
        "(SELECT CASE WHEN reset_val::pg_catalog.int8 OPERATOR(pg_catalog.>=) 1::pg_catalog.int8 "
        f"AND reset_val::pg_catalog.int8 OPERATOR(pg_catalog.<=) {milliseconds or 2**31 - 1}::pg_catalog.int8 "
        f"THEN reset_val ELSE '{milliseconds}' END FROM pg_catalog.pg_settings "
        f"WHERE name OPERATOR(pg_catalog.=) '{name}'::pg_catalog.text)"
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
    return await connection.execute(f"SELECT 1 WHERE {_is_pid(pid)}") == _ONE_ROW


def _is_pid(pid: int) -> str:
    return f"pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {pid}"


def _settings(values: Mapping[str, str]) -> str:
    """Return the query that makes settings of the session, in whatever way names and strings are read before."""
    return f"SELECT {', '.join(_setting(name, value, local=False) for name, value in values.items())}"


def _setting(name: str, value: str, *, local: bool) -> str:
    return f"pg_catalog.set_config({quoted(name)}, {quoted(value)}, {str(local).lower()})"


def quoted(text: str) -> str:
    """Return a text as a literal that means the same whatever standard_conforming_strings is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


async def _learn(connection: Session) -> None:
    """Take note of what the session is like, and guard it."""
    was = ", ".join(f"pg_catalog.current_setting({quoted(name)})" for name in _GUARDED)
    guard = ", ".join(_guard("", local=False))
    limits = ", ".join(f"pg_catalog.current_setting({quoted(name)}, true)" for name in _ENDED_BY)
    row = await connection.fetchrow(f"SELECT {_RUN}, {was}, {limits}, {guard}")
    assert row is not None
    connection.server_started, connection.standby, *before = row[: 2 + len(_GUARDED)]
    # PostgreSQL writes whole seconds without milliseconds, and 0 for no limit.
    ends_soon = (limit is not None and limit.endswith("ms") for limit in row[2 + len(_GUARDED) :][: len(_ENDED_BY)])
    connection.may_rest = not any(ends_soon)
    connection._relaxed = dict(zip(_GUARDED, before, strict=True))
    connection.path = before[0]
    connection.guarded = True


def _guard(restricted: str, *, local: bool) -> list[str]:
    """Return the expressions that guard a session, or a transaction of it. `restricted` are kinds of relations."""
    made = [_setting(name, value, local=local) for name, value in _GUARDED.items()]
    # Whoever may bypass row-level security lets no policy run.
    bypasses = (
        "SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles "
        "WHERE rolname OPERATOR(pg_catalog.=) CURRENT_USER::pg_catalog.name"
    )
    made.append(f"CASE WHEN ({bypasses}) THEN {_setting('row_security', 'off', local=local)} END")
    if restricted:
        # Not every version knows it.
        known = f"pg_catalog.current_setting({quoted(_RESTRICTED)}, true) IS NOT NULL"
        made.append(f"CASE WHEN {known} THEN {_setting(_RESTRICTED, restricted, local=local)} END")
    return made


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

    pool = Pool(another, size, connector.where, read_only=read_only)
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
    isolation = await connection.fetchval("SELECT current_setting('default_transaction_isolation')")
    if isolation != "read committed" and not read_only:
        raise StoreFailed(
            f"transactions at {connector.where} are {isolation}, and as {connector.pooler}, esx cannot change that: "
            "ALTER ROLE or ALTER DATABASE ... SET default_transaction_isolation = 'read committed', or connect to "
            "PostgreSQL itself"
        )

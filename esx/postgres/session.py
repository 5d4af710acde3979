"""A session: the driver's connection, how it finds names, and groups of queries in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, cast

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from asyncpg.transaction import Transaction

from esx.postgres.driver_errors import DRIVER_ERRORS, STALE
from esx.postgres.driver_internals import fetch_prepared
from esx.postgres.literals import quoted
from esx.postgres.settings import GUARDED, RESTRICTED, guarding, set_config

_RUN = "pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_is_in_recovery()"
_ENDED_BY = ("idle_in_transaction_session_timeout", "transaction_timeout")
_CLOSE_PATIENCE = 1.0
_SETTLE_LIMIT = 10.0
_SETTLE_PAUSE = 0.005

T = TypeVar("T")


class Session(asyncpg.Connection):
    """A connection that finds names in one of two ways; `resolve` switches between them.

    At first it finds them as the user does: search_path comes from the server, the role or the address, as triggers and
    the code of applications may need it. A guarded session finds names without a schema in pg_catalog only, and writes
    names and values as esx expects. So no user can replace a function or an operator that a query means
    (CVE-2018-1058; pg_dump does the same).

    Queries can be grouped in one transaction (`begin`, `end`). Statements that `repeat` runs stay prepared: asyncpg
    keeps them too, but to find one there costs a tenth of a small append.
    """

    __slots__ = (
        "_group",
        "_group_reads",
        "_relaxed",
        "asked",
        "begun",
        "depth",
        "dialled",
        "ended",
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
    """The settings that its user has asked for, by name."""
    dialled: str
    """Where it was connected to: the directory of a socket, an address, or the name of a host."""
    limited: bool
    """Whether the driver gives up statements that take too long, with TimeoutError."""
    kept: dict[str, PreparedStatement[asyncpg.Record]] | None
    """The prepared statements by query; None behind a pooler, where nothing may stay in a session."""
    server_started: datetime | None
    """When its server was started. Behind a pooler it is known while a transaction is guarded, as is `standby`."""
    standby: bool | None
    """Whether its server was a hot standby when it was asked."""
    path: str
    """The user's search_path."""
    guarded: bool
    restricted: str
    """The kinds of relations that it may not read while it is guarded."""
    rewrite: Callable[[str], str] | None
    """Changes each query before it is sent; see `esx.layouts.operators`."""
    begun: int
    """How many statements have begun; of these, `ended` have ended."""
    ended: int
    depth: int
    """How many transactions are open that `transaction` began: within a group these are savepoints."""
    group_until: float
    """When its group has to end, by the monotonic clock."""
    may_rest: bool
    """Whether a group may wait for its next query: not if the server ends transactions within less than a second."""
    rests_since: float
    """When its group was used last, by the loop's clock."""
    resting: asyncio.TimerHandle | None
    """The timer that ends an idle group, while there is one."""
    _group: Transaction | None
    """The transaction of its group, None if the driver has dropped it."""
    _group_reads: bool | None
    """Whether its group is READ ONLY, None while there is no group."""
    _relaxed: Mapping[str, str]
    """The user's values of the settings in `GUARDED`."""

    def __init__(self, *what: Any, **how: Any) -> None:
        super().__init__(*what, **how)
        self.asked, self.dialled, self.limited, self.kept = {}, "", False, None
        self.server_started = self.standby = None
        self.path, self.guarded, self.restricted, self._relaxed, self.rewrite = "", False, "", {}, None
        self.begun = self.ended = self.depth = 0
        self.may_rest, self.group_until, self.rests_since, self.resting = True, 0.0, 0.0, None
        self._group = self._group_reads = None

    # -- queries -----------------------------------------------------------------------------------------------

    async def repeat(self, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Run a query that is run often, and return its rows."""
        kept = self.kept
        if kept is None:
            return cast("Sequence[asyncpg.Record]", await self.fetch(query, *arguments))
        statement = kept.get(query)
        if statement is None:
            statement = kept[query] = await self.prepare(query)
        self.begun += 1
        try:
            return await fetch_prepared(self, statement, arguments)
        except asyncpg.InvalidCachedStatementError:
            # The table was altered meanwhile, and the statement was not run.
            kept.clear()
            if self.is_in_transaction() and not await self.recover():
                raise
            return cast("Sequence[asyncpg.Record]", await self.fetch(query, *arguments))
        finally:
            self.ended += 1

    async def fetch(self, query: str, *arguments: Any, **how: Any) -> Any:
        """Do as asyncpg does."""
        return await self._run(super().fetch, query, *arguments, **how)

    async def fetchrow(self, query: str, *arguments: Any, **how: Any) -> asyncpg.Record | None:  # type: ignore[override]
        """Do as asyncpg does."""
        return await self._run(super().fetchrow, query, *arguments, **how)

    async def fetchval(self, query: str, *arguments: Any, **how: Any) -> Any:
        """Do as asyncpg does."""
        return await self._run(super().fetchval, query, *arguments, **how)

    async def execute(self, *what: Any, **how: Any) -> str:
        """Do as asyncpg does."""
        return await self._counted(super().execute(*what, **how))

    async def executemany(self, *what: Any, **how: Any) -> None:
        """Do as asyncpg does."""
        await self._counted(super().executemany(*what, **how))

    async def prepare(self, query: str, **how: Any) -> PreparedStatement[asyncpg.Record]:  # type: ignore[override]
        """Do as asyncpg does."""
        return await self._counted(super().prepare(self._rewritten(query), **how))

    async def copy_from_query(self, query: str, *arguments: Any, **how: Any) -> str:
        """Do as asyncpg does."""
        return await self._copy(super().copy_from_query(self._rewritten(query), *arguments, **how))

    async def copy_to_table(self, *what: Any, **how: Any) -> str:
        """Do as asyncpg does."""
        return await self._copy(super().copy_to_table(*what, **how))

    async def copy_records_to_table(self, *what: Any, **how: Any) -> str:
        """Do as asyncpg does."""
        return await self._copy(super().copy_records_to_table(*what, **how))

    def _rewritten(self, query: str) -> str:
        return query if self.rewrite is None else self.rewrite(query)

    async def _run(self, run: Callable[..., Awaitable[T]], query: str, *arguments: Any, **how: Any) -> T:
        """Run a query, in a group once more if the table was altered meanwhile. Outside of one asyncpg does that."""
        query = self._rewritten(query)
        self.begun += 1
        try:
            return await run(query, *arguments, **how)
        except STALE:
            if not await self.recover():
                raise
            return await run(query, *arguments, **how)
        except AttributeError as error:
            raise self._meant(error) from error
        finally:
            self.ended += 1

    async def _copy(self, copying: Coroutine[Any, Any, str]) -> str:
        try:
            return await self._counted(copying)
        except asyncpg.InternalClientError:
            # The server has said that it ends the session, and has not done so yet. asyncpg then drops a future before
            # it waits for it. If the connection were terminated, the exception of that future would never be retrieved.
            with contextlib.suppress(*DRIVER_ERRORS, OSError):
                await self.close(timeout=_CLOSE_PATIENCE)
            raise

    async def _counted(self, running: Awaitable[T]) -> T:
        self.begun += 1
        try:
            return await running
        except AttributeError as error:
            raise self._meant(error) from error
        finally:
            self.ended += 1

    def _meant(self, error: AttributeError) -> Exception:
        """Return what an error means that asyncpg raises if a connection is terminated between two of its steps."""
        return asyncpg.InterfaceError("the connection is closed") if self.is_closed() else error

    # -- names -------------------------------------------------------------------------------------------------

    async def learn(self) -> None:
        """Read the settings of the session, and guard it."""
        was = ", ".join(f"pg_catalog.current_setting({quoted(name)})" for name in GUARDED)
        guard = ", ".join(guarding("", local=False))
        limits = ", ".join(f"pg_catalog.current_setting({quoted(name)}, true)" for name in _ENDED_BY)
        row = await self.fetchrow(f"SELECT {_RUN}, {was}, {limits}, {guard}")
        assert row is not None
        self.server_started, self.standby, *before = row[: 2 + len(GUARDED)]
        # PostgreSQL writes whole seconds without milliseconds, and 0 for no limit.
        ends_soon = (limit is not None and limit.endswith("ms") for limit in row[2 + len(GUARDED) :][: len(_ENDED_BY)])
        self.may_rest = not any(ends_soon)
        self._relaxed = dict(zip(GUARDED, before, strict=True))
        self.path = before[0]
        self.guarded = True

    async def resolve(self, *, guarded: bool, restricted: str = "") -> None:
        """Find names in pg_catalog only, or as the user does.

        Behind a pooler, where other clients use the session too, guarding needs a transaction, and ends with it.
        `restricted` are the kinds of relations that a guarded session may not read, in the format of the setting
        restrict_nonsystem_relation_kind.
        """
        if guarded and (not self.guarded or self.restricted != restricted):
            self.guarded, self.restricted = True, restricted
            guard = ", ".join(guarding(restricted, local=self.kept is None))
            if self.kept is not None:
                await self.execute(f"SELECT {guard}")
            else:  # a pooler may lead to another server in the next transaction
                row = await super().fetchrow(f"SELECT {_RUN}, {guard}")
                assert row is not None
                self.server_started, self.standby = row[:2]
        elif self.guarded and not guarded:
            relaxed = {**self._relaxed, **({RESTRICTED: ""} if self.restricted else {})}
            self.guarded, self.restricted = False, ""
            made = ", ".join(set_config(name, value, local=False) for name, value in relaxed.items())
            await self.execute(f"SELECT {made}")

    async def read_views(self) -> None:
        """Allow to read views until the transaction ends."""
        if "view" in self.restricted:
            kinds = self.restricted.replace("view, ", "").replace("view", "")
            await self.execute(f"SELECT {set_config(RESTRICTED, kinds, local=True)}")

    def as_user(self) -> list[str]:
        """Return the expressions by which names are found as the user finds them, until the transaction ends."""
        return [set_config(name, value, local=True) for name, value in self._relaxed.items() if value != GUARDED[name]]

    @staticmethod
    def as_guarded() -> list[str]:
        """Return the expressions that undo `as_user`, and what the user's code has set since."""
        return [set_config(name, value, local=True) for name, value in GUARDED.items()]

    # -- transactions ------------------------------------------------------------------------------------------

    async def begin(self, *, read_only: bool) -> None:
        """Begin a transaction for a group of queries. Each sees what is committed when the query begins."""
        transaction = super().transaction(isolation="read_committed", readonly=read_only)
        self.depth = 1  # for the driver, also if this is cancelled
        await transaction.start()
        self.depth, self._group, self._group_reads = 0, transaction, read_only

    async def end(self, *, commit: bool = False) -> None:
        """End the group of queries, also after a failed query; if this is cancelled, it can be called again.

        Raises the driver's errors.
        """
        transaction, self._group = self._group, None
        if transaction is None:  # a cancelled call before this one: the driver has dropped it already
            await self.execute("ROLLBACK")
        elif commit:
            await transaction.commit()
        else:
            await transaction.rollback()
        self._group_reads = None
        self.transaction_ends()

    def transaction_ends(self) -> None:
        """Note that a transaction ends, and with it the settings that were made for it."""
        if self.kept is None:
            self.guarded, self.restricted = False, ""

    @property
    def in_group(self) -> bool:
        """Whether a group of queries has begun and not ended."""
        return self._group_reads is not None

    async def settle(self) -> bool:
        """Wait until the session can be used again after its work was cancelled; return whether it can."""
        try:
            async with asyncio.timeout(_SETTLE_LIMIT):
                while not self.is_closed():
                    try:
                        await (self.end() if self.in_group else self.execute("SELECT 1"))
                    except asyncpg.InternalClientError:
                        # The answer to the cancelled statement is still being read.
                        await asyncio.sleep(_SETTLE_PAUSE)
                    else:
                        return True
        except (*DRIVER_ERRORS, OSError):
            return False
        return False

    @property
    def clean(self) -> bool:
        """Whether no transaction is open, except that of its group."""
        return not self.depth and (self.in_group or not self.is_in_transaction())

    def transaction(self, **how: Any) -> Transaction:
        """Do as asyncpg does: within a group that is a savepoint."""
        return cast("Transaction", _Counted(self, super().transaction(**how)))

    async def recover(self) -> bool:
        """Begin the group of queries again after a failed query; return whether that was possible.

        It is not without a group, or if another transaction is open within it: its work would be lost without an error.
        """
        read_only, guarded, restricted = self._group_reads, self.guarded, self.restricted
        if read_only is None or self.depth:
            return False
        await self.end()
        await self.begin(read_only=read_only)
        await self.resolve(guarded=guarded, restricted=restricted)
        return True


class _Counted:
    """A transaction of asyncpg that its session counts while it is open; it has the documented methods of one."""

    def __init__(self, session: Session, transaction: Transaction) -> None:
        self._session = session
        self._transaction = transaction

    async def start(self) -> None:
        """Begin it."""
        await self._begin(self._transaction.start())

    async def commit(self) -> None:
        """Commit it."""
        await self._end(self._transaction.commit())

    async def rollback(self) -> None:
        """Undo it."""
        await self._end(self._transaction.rollback())

    async def __aenter__(self) -> None:
        await self._begin(self._transaction.__aenter__())

    async def __aexit__(self, *what: Any) -> None:
        await self._end(self._transaction.__aexit__(*what))

    async def _begin(self, beginning: Awaitable[None]) -> None:
        session = self._session
        within = session.in_group or session.depth > 0
        session.depth += 1
        try:
            await beginning
        except BaseException:
            # If its BEGIN fails or is cancelled, asyncpg takes it for begun, and would nest the next one in it.
            session.depth -= within
            raise

    async def _end(self, ending: Awaitable[None]) -> None:
        try:
            await ending
        finally:
            self._session.depth -= 1

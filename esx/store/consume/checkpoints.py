"""The checkpoints of consumers: a table with a row for each; and their leases.

A lease is an advisory lock that the active instance of a consumer holds in the session in which it works. An instance
that loses its session loses the lease and the transaction with it. Behind a connection pooler in transaction mode there
is no lease: the lock would stay on a connection that other clients share.
"""

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal, NamedTuple

import asyncpg

from esx.errors import InvalidQuery, ProjectionFailed, RelayFailed, SchemaMissing, UnknownProjection
from esx.layouts.layout import Layout
from esx.postgres.driver_errors import first_line
from esx.postgres.literals import literal
from esx.postgres.session import Session
from esx.postgres.values import UNREADABLE
from esx.store.consume.put_aside import forget_put_aside
from esx.store.consume.rate import RateMeter
from esx.store.feed.comparison import compare_kept
from esx.store.feed.history import History, history_at
from esx.store.feed.server import look

Kind = Literal["projection", "relay"]
_LAST_SEQ = 2**63 - 1
# "esxp". With a projection's id it makes the two keys of the lock. The oid of the table keeps two schemas of a database
# apart, which both number their projections from 1. Since schema version 2 the table is consumers, and projections is a
# view: an older esx uses the oid of the view, so it does not see the locks of this one.
_LOCK_CLASS = 0x65737870
# If the client's machine is gone, the server notices it within half a minute, not after hours, and frees the lease.
_KEEPALIVE = """
    SELECT set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),
           set_config('tcp_keepalives_count', '4', false)
"""


class Checkpoint(NamedTuple):
    """The row, for the instance that runs the consumer. `history` is the history that was read, as JSON, or None."""

    id: int
    position: int
    paused: bool
    history: str | None


@contextlib.contextmanager
def usable_table() -> Iterator[None]:
    """Raise SchemaMissing where the table or a column of it is missing."""
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise SchemaMissing(
            f"the database has no usable table projections ({first_line(error)}): run `esx init` to create it"
        ) from error


async def keeps_history(connection: asyncpg.Connection, layout: Layout, table: str = "projections") -> bool:
    """Return whether the table has the column history, as it does since version 2 of the schema."""
    with_history = "SELECT FROM pg_attribute WHERE attrelid = pg_catalog.to_regclass($1) AND attname = 'history'"
    return bool(await connection.fetchval(f"SELECT EXISTS ({with_history} AND NOT attisdropped)", layout.ours(table)))


async def keeps_runner(connection: asyncpg.Connection, layout: Layout, table: str = "projections") -> bool:
    """Return whether the table has room for who runs a consumer, as it does since version 3 of the schema."""
    with_filter = "SELECT FROM pg_attribute WHERE attrelid = pg_catalog.to_regclass($1) AND attname = 'filter'"
    return bool(await connection.fetchval(f"SELECT EXISTS ({with_filter} AND NOT attisdropped)", layout.ours(table)))


class CheckpointRow:
    """The row of one consumer, in the table of checkpoints.

    Projections are reached through the view of that name, which is all that their roles may need rights to.
    """

    def __init__(self, layout: Layout, name: str, kind: Kind = "projection") -> None:
        self.name = name
        self.kind = kind
        self.keeps_history = True
        """Whether the table has the column history; known after `register`."""
        self.keeps_runner = True
        """Whether the table has room for who runs the consumer, and its rate; known after `register`."""
        self._meter = RateMeter()
        self._layout = layout
        self._named = "projections" if kind == "projection" else "consumers"
        self._table = layout.ours(self._named)
        self._mine = "name = $1" if kind == "projection" else f"name = $1 AND kind = {literal(kind)}"

    # -- for the instance that runs the projection ---------------------------------------------------------------

    async def register(self, connection: asyncpg.Connection, start: int = 0) -> Checkpoint:
        """Return the checkpoint, and make it at `start` if there is none.

        Raises SchemaMissing, and ProjectionFailed or RelayFailed.
        """
        with usable_table():
            self.keeps_history = await keeps_history(connection, self._layout, self._named)
            self.keeps_runner = await keeps_runner(connection, self._layout, self._named)
            known = await self.load(connection)
            if known is None:
                kind = ("", "") if self.kind == "projection" else (", kind", f", {literal(self.kind)}")
                if self.keeps_runner:
                    kind = (f"{kind[0]}, start", f"{kind[1]}, $2")
                await connection.execute(
                    f"INSERT INTO {self._table} (name, position{kind[0]}) VALUES ($1, $2{kind[1]}) "
                    "ON CONFLICT (name) DO NOTHING",
                    self.name,
                    start,
                )
                known = await self.load(connection)
        if known is None:
            failed = ProjectionFailed if self.kind == "projection" else RelayFailed
            raise failed(self.name, None, "it was deleted, or its name is that of a consumer of another kind")
        return known

    async def load(self, connection: asyncpg.Connection) -> Checkpoint | None:
        """Return the checkpoint, None if there is none."""
        history = "history::text" if self.keeps_history else "NULL::text"
        row = await connection.fetchrow(
            f"SELECT id, position, paused, {history} FROM {self._table} WHERE {self._mine}", self.name
        )
        return None if row is None else Checkpoint._make(row)

    async def within_head(self, connection: asyncpg.Connection, id_: int, position: int) -> bool | None:
        """Return whether the checkpoint is not above the head; None if it is not at `position`, or is paused."""
        head = f"greatest({self._layout.head()}, (SELECT max(global_seq) FROM {self._layout.numbers}), 0)"
        within: bool | None = await connection.fetchval(
            f"SELECT position <= {head} FROM {self._table} "
            f"WHERE {self._mine} AND id = $2 AND position = $3 AND NOT paused",
            self.name,
            id_,
            position,
        )
        return within

    async def lock_at(self, connection: Session, position: int) -> str | None:
        """Lock the row until the end of the transaction, and return the transaction's id.

        Until then names are found as the user finds them. None if the row is not at `position`, or is paused.
        """
        transaction: str | None = await connection.fetchval(
            f"SELECT pg_catalog.pg_current_xact_id()::text{''.join(f', {each}' for each in connection.as_user())} "
            f"FROM {self._table} WHERE {self._mine} AND position = $2 AND NOT paused FOR UPDATE",
            self.name,
            position,
        )
        return transaction

    async def lock(self, connection: asyncpg.Connection, position: int) -> bool:
        """Lock the row until the end of the transaction; False if it is not at `position`, or is paused."""
        return (
            await connection.fetchval(
                f"SELECT true FROM {self._table} WHERE {self._mine} AND position = $2 AND NOT paused FOR UPDATE",
                self.name,
                position,
            )
            is not None
        )

    async def advance(
        self,
        connection: asyncpg.Connection,
        old: int,
        history: History,
        *,
        transaction: str | None = None,
        handled: int = 0,
    ) -> bool:
        """Move the checkpoint from `old` to the end of `history`, and store the history if there is a column for it.

        `handled` is how many events were handled since the last call, for the rate.

        Returns False, and moves nothing, if the checkpoint is not at `old`, is paused, or was locked by another
        `transaction`.
        """
        kept = self.as_kept(history)
        # It is sent as text, because a handler may have set a codec for JSON.
        keep = "" if kept is None else ", history = $5::text::jsonb"
        rate: tuple[float, ...] = ()
        if self.keeps_runner and kept is not None:
            keep += ", rate = $6, error_seq = NULL, failed_at = NULL"
            rate = (self._meter.count(handled),)
        return (
            await connection.fetchval(
                f"UPDATE {self._table} SET position = $3, last_error = NULL, updated_at = pg_catalog.now(){keep} "
                f"WHERE {self._mine} AND position = $2 AND NOT paused "
                "AND ($4::text IS NULL OR $4 = pg_catalog.pg_current_xact_id()::text) RETURNING true",
                *(self.name, old, history.position, transaction),
                *(() if kept is None else (kept,)),
                *rate,
            )
            is not None
        )

    def as_kept(self, history: History) -> str | None:
        """Return a history as the row holds it; None if there is no column for it."""
        return history.to_json() if self.keeps_history else None

    async def keep_history(self, connection: asyncpg.Connection, position: int, history: History) -> None:
        """Store the history, if there is a column for it, unless the projection has moved."""
        if self.keeps_history:
            await connection.execute(
                f"UPDATE {self._table} SET history = $3::text::jsonb WHERE {self._mine} AND position = $2",
                self.name,
                position,
                history.to_json(),
            )

    async def note_error(
        self, connection: asyncpg.Connection, position: int, error: str | None, global_seq: int | None = None
    ) -> None:
        """Store what stopped the consumer, and at which event, unless it has moved; None: nothing does any more."""
        also = ""
        at: tuple[int | None, ...] = ()
        if self.keeps_runner:
            also, at = ", error_seq = $4, failed_at = pg_catalog.now()", (global_seq,)
        statement = f"UPDATE {self._table} SET last_error = $3{also} WHERE {self._mine} AND position = $2"
        try:
            await connection.execute(statement, self.name, position, error, *at)
        except UNREADABLE:  # the database's encoding lacks a character of it
            assert error is not None
            escaped = error.encode("ascii", "backslashreplace").decode()
            await connection.execute(statement, self.name, position, escaped, *at)

    async def note_runner(self, connection: asyncpg.Connection, *, leased: bool, wants: str | None = None) -> None:
        """Store that this process runs the consumer, with a lease or behind a pooler, and `wants`, its filter as JSON.

        A filter that is changed after events were handled is stored with the position at which that was.
        """
        if not self.keeps_runner:
            return
        await connection.execute(
            f"""
            UPDATE {self._table} SET host = $2, pid = $3, since = pg_catalog.now(), seen_at = pg_catalog.now(),
                backend = CASE WHEN $4 THEN pg_catalog.pg_backend_pid() END,
                filter = CASE WHEN $5::text IS NULL THEN filter
                              WHEN filter - 'changed_at' = $5::text::jsonb THEN filter
                              WHEN position = start THEN $5::text::jsonb
                              ELSE $5::text::jsonb || pg_catalog.jsonb_build_object('changed_at', position) END
            WHERE name = $1
            """,
            *(self.name, socket.gethostname(), os.getpid(), leased, wants),
        )

    async def note_seen(self, connection: asyncpg.Connection) -> None:
        """Store that the instance is there, where no lease shows it."""
        if self.keeps_runner:
            await connection.execute(f"UPDATE {self._table} SET seen_at = pg_catalog.now() WHERE name = $1", self.name)

    # -- from outside --------------------------------------------------------------------------------------------

    async def set_paused(self, connection: asyncpg.Connection, paused: bool) -> None:
        """Pause or resume. Waits for the batch that is being handled. Raises UnknownProjection."""
        with usable_table():
            if not await connection.fetchval(
                f"UPDATE {self._table} SET paused = $2 WHERE {self._mine} RETURNING true", self.name, paused
            ):
                raise UnknownProjection(self.name)

    async def reset(
        self,
        connection: Session,
        to: int,
        clear: Callable[[asyncpg.Connection], Awaitable[object]] | None,
    ) -> None:
        """Set the checkpoint and call `clear`, in one transaction; see `EventStore.reset_projection`.

        Only `clear` finds names as the user does.
        """
        if not 0 <= to <= _LAST_SEQ:
            raise InvalidQuery(f"{to} is not a position: use a global_seq, or 0 for the start")
        with usable_table():
            async with connection.transaction():
                guarded = f"SELECT {', '.join(('true', *connection.as_guarded()))}"
                await connection.fetchval(guarded)
                # The row first, as an instance that handles a batch does: so the two cannot deadlock.
                await self._lock(connection)
                if clear is not None:
                    await connection.fetchval(f"SELECT {', '.join(('true', *connection.as_user()))}")
                    try:
                        await clear(connection)
                    except Exception as error:
                        reason = f"clearing for a reset failed: {first_line(error)}"
                        raise ProjectionFailed(self.name, None, reason) from error
                    await connection.fetchval(guarded)
                forget = ", history = NULL" if await keeps_history(connection, self._layout, self._named) else ""
                if await keeps_runner(connection, self._layout, self._named):
                    forget += ", error_seq = NULL, failed_at = NULL, rate = 0, start = $2"
                    await forget_put_aside(connection, self._layout, self.name, to)
                await connection.execute(
                    f"UPDATE {self._table} SET position = $2, last_error = NULL, updated_at = pg_catalog.now(){forget} "
                    f"WHERE {self._mine}",
                    self.name,
                    to,
                )

    async def accept(self, connection: asyncpg.Connection) -> None:
        """Make what is visible up to the position the projection's history; see `EventStore.accept_history`."""
        with usable_table():
            if not await keeps_history(connection, self._layout, self._named):
                raise SchemaMissing("table projections has no room for a history: run `esx init` to make it")
            async with connection.transaction():
                position = await self._lock(connection)
                here = await look(connection, self._layout)
                beyond = await compare_kept(connection, self._layout, here, None, position)
                if beyond is not None:
                    raise beyond.error(position, projection=self.name)
                history = await history_at(connection, self._layout, position)
                await connection.execute(
                    f"UPDATE {self._table} SET history = $2::text::jsonb, last_error = NULL WHERE {self._mine}",
                    self.name,
                    history.to_json(),
                )

    async def delete(self, connection: asyncpg.Connection) -> None:
        """Delete the row. Waits for the batch that is being handled. Raises UnknownProjection."""
        with usable_table():
            if not await connection.fetchval(f"DELETE FROM {self._table} WHERE {self._mine} RETURNING true", self.name):
                raise UnknownProjection(self.name)

    async def _lock(self, connection: asyncpg.Connection) -> int:
        """Lock the row, and return its position; raises UnknownProjection."""
        position: int | None = await connection.fetchval(
            f"SELECT position FROM {self._table} WHERE {self._mine} FOR UPDATE", self.name
        )
        if position is None:
            raise UnknownProjection(self.name)
        return position


def lock_class(layout: Layout) -> str:
    """Return the first key of a lease's lock, as SQL; the second is the projection's id."""
    consumers, projections = (literal(layout.ours(name)) for name in ("consumers", "projections"))
    return f"({_LOCK_CLASS} # coalesce(to_regclass({consumers}), {projections}::regclass)::oid::int)"


async def keep_alive(connection: asyncpg.Connection) -> None:
    """Let the server notice within half a minute that the client's machine is gone."""
    await connection.execute(_KEEPALIVE)


async def take_lease(connection: asyncpg.Connection, layout: Layout, id_: int) -> bool:
    """Take the lease of a projection until the session ends; return False if another session has it.

    It does not wait: a waiting statement would hold back vacuum in the whole cluster.
    """
    return bool(await connection.fetchval(f"SELECT pg_try_advisory_lock({lock_class(layout)}, $1)", id_))

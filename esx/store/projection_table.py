"""The checkpoints of projections, what may be done to them from outside, and how far behind they are."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from esx.store.barrier import Writer, writers_sql
from esx.store.careful import UNREADABLE
from esx.store.driver import first_line
from esx.store.errors import InvalidQuery, ProjectionFailed, SchemaMissing, UnknownProjection
from esx.store.history import compare_kept, history_at, look
from esx.store.layout import literal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from datetime import datetime

    from esx.store.connection import Session
    from esx.store.history import Difference
    from esx.store.layout import Layout

# "esxp". With a projection's id it is the advisory lock of its active instance; the table's own number tells apart
# those of two schemas in one database, where ids begin anew. The table was called projections until schema version 2,
# which is a view since then: an older esx takes the view's number, so it does not see the locks of this one.
_LOCK_CLASS = 0x65737870
_COUNTED = 10_000
_LAST_SEQ = 2**63 - 1


class Checkpoint(NamedTuple):
    """A row of the table, as the one who runs the projection sees it."""

    id: int
    position: int
    paused: bool
    history: str | None
    """What is known of what was read, as JSON."""


class ProjectionOwner(NamedTuple):
    """The session of the active instance. Fields are None where PostgreSQL does not show them to this user."""

    pid: int
    application: str | None
    client: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class ProjectionStatus:
    """How far a projection has come.

    `position` is the global_seq up to which everything is handled, `head` the highest one handed out. `lag` is the
    number of visible events after the position, `lag_seconds` the age of the first of them by its created_at. `lag`
    is exact up to 10,000; beyond, it is the distance in numbers to the last visible event, missing ones included.
    `held_by` are the open transactions that may still fill a gap right after the position. `owner` is the session
    that runs it, `last_error` what it died of at the event after the position. `difference` says how the store differs
    from what the projection has read, None if it does not: then it will not go on by itself.
    """

    name: str
    position: int
    head: int
    lag: int
    lag_seconds: float
    paused: bool
    owner: ProjectionOwner | None
    held_by: tuple[Writer, ...]
    last_error: str | None
    updated_at: datetime
    difference: Difference | None = None

    @property
    def beyond(self) -> int:
        """How far the position is beyond the head, where it cannot be in the history that it belongs to."""
        return max(self.position - self.head, 0)

    @property
    def lag_exact(self) -> bool:
        """Whether `lag` was counted."""
        return self.lag <= _COUNTED

    @property
    def active(self) -> bool:
        """Whether an instance runs it. Those behind a connection pooler are not seen."""
        return self.owner is not None


def lock_class(layout: Layout) -> str:
    """Return the first of the two keys of a projection's lock, as SQL."""
    consumers, projections = (literal(layout.ours(name)) for name in ("consumers", "projections"))
    return f"({_LOCK_CLASS} # coalesce(to_regclass({consumers}), {projections}::regclass)::oid::int)"


def _named(layout: Layout) -> str:
    return layout.ours("projections")


@contextlib.contextmanager
def _table() -> Iterator[None]:
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise SchemaMissing(
            f"the database has no usable table projections ({first_line(error)}): run `esx init` to create it"
        ) from error


async def keeps_history(connection: asyncpg.Connection, layout: Layout) -> bool:
    """Return whether the table has room for a history: since version 2 of the schema."""
    with_history = "SELECT FROM pg_attribute WHERE attrelid = pg_catalog.to_regclass($1) AND attname = 'history'"
    table = layout.ours("projections")
    return bool(await connection.fetchval(f"SELECT EXISTS ({with_history} AND NOT attisdropped)", table))


async def register(connection: asyncpg.Connection, layout: Layout, name: str) -> Checkpoint:
    """Return the projection's checkpoint, made now if it is new."""
    with _table():
        kept = await keeps_history(connection, layout)
        known = await load(connection, layout, name, kept=kept)
        if known is None:
            await connection.execute(
                f"INSERT INTO {_named(layout)} (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", name
            )
            known = await load(connection, layout, name, kept=kept)
    if known is None:
        raise ProjectionFailed(name, None, "somebody deleted it, or its name is that of a consumer of another kind")
    return known


async def load(connection: asyncpg.Connection, layout: Layout, name: str, *, kept: bool) -> Checkpoint | None:
    """Return the projection's checkpoint, None if it has none; `kept` says that the table has room for a history."""
    history = "history::text" if kept else "NULL::text"
    row = await connection.fetchrow(
        f"SELECT id, position, paused, {history} FROM {_named(layout)} WHERE name = $1", name
    )
    return None if row is None else Checkpoint._make(row)


async def within_head(
    connection: asyncpg.Connection, layout: Layout, name: str, id_: int, position: int
) -> bool | None:
    """Return whether the checkpoint is not beyond the head; None if it is not at `position`, or paused."""
    table = layout.table
    within: bool | None = await connection.fetchval(
        f"SELECT position <= greatest({layout.head()}, (SELECT max(global_seq) FROM {table}), 0) FROM {_named(layout)} "
        "WHERE name = $1 AND id = $2 AND position = $3 AND NOT paused",
        name,
        id_,
        position,
    )
    return within


async def lock_at(connection: Session, layout: Layout, name: str, position: int) -> str | None:
    """Lock the checkpoint until the end of the transaction, whose id is returned; until then names are the user's.

    None if it is not at `position`, or paused.
    """
    transaction: str | None = await connection.fetchval(
        f"SELECT pg_catalog.pg_current_xact_id()::text{''.join(f', {each}' for each in connection.as_user())} "
        f"FROM {_named(layout)} WHERE name = $1 AND position = $2 AND NOT paused FOR UPDATE",
        name,
        position,
    )
    return transaction


async def advance(
    connection: asyncpg.Connection,
    layout: Layout,
    name: str,
    old: int,
    new: int,
    *,
    history: str | None = None,
    transaction: str | None = None,
) -> bool:
    """Move the checkpoint from `old` to `new`; False, and nothing is moved, if it is not at `old`, or paused.

    So too if this is not the `transaction` that has locked it. `history` is what is known at `new`, as JSON; None where
    the table has no room for it.
    """
    # As text: a handler may have set a codec for JSON.
    keep = "" if history is None else ", history = $5::text::jsonb"
    return (
        await connection.fetchval(
            f"UPDATE {_named(layout)} SET position = $3, last_error = NULL, updated_at = pg_catalog.now(){keep} "
            "WHERE name = $1 AND position = $2 AND NOT paused "
            "AND ($4::text IS NULL OR $4 = pg_catalog.pg_current_xact_id()::text) RETURNING true",
            *(name, old, new, transaction),
            *(() if history is None else (history,)),
        )
        is not None
    )


async def keep_history(connection: asyncpg.Connection, layout: Layout, name: str, position: int, history: str) -> None:
    """Keep what is known of the history, unless the projection has moved on."""
    await connection.execute(
        f"UPDATE {_named(layout)} SET history = $3::text::jsonb WHERE name = $1 AND position = $2",
        name,
        position,
        history,
    )


async def in_transaction(connection: asyncpg.Connection, transaction: str) -> bool:
    """Return whether the connection is in this transaction still."""
    return bool(await connection.fetchval("SELECT $1 = pg_catalog.pg_current_xact_id()::text", transaction))


async def note_error(connection: asyncpg.Connection, layout: Layout, name: str, position: int, error: str) -> None:
    """Keep what the handler died of, unless the projection has moved on."""
    statement = f"UPDATE {_named(layout)} SET last_error = $3 WHERE name = $1 AND position = $2"
    try:
        await connection.execute(statement, name, position, error)
    except UNREADABLE:  # The encoding of the database lacks a character of it.
        await connection.execute(statement, name, position, error.encode("ascii", "backslashreplace").decode())


async def set_paused(connection: asyncpg.Connection, layout: Layout, name: str, paused: bool) -> None:
    """Pause or resume. Waits for the batch being handled, whose transaction has the row locked."""
    with _table():
        if not await connection.fetchval(
            f"UPDATE {_named(layout)} SET paused = $2 WHERE name = $1 RETURNING true", name, paused
        ):
            raise UnknownProjection(name)


async def reset(
    connection: asyncpg.Connection,
    layout: Layout,
    name: str,
    to: int,
    clear: Callable[[asyncpg.Connection], Awaitable[object]] | None,
) -> None:
    """Set the checkpoint, and clear the read model in the same transaction."""
    if not 0 <= to <= _LAST_SEQ:
        raise InvalidQuery(f"{to} is not a position: use a global_seq, or 0 for the start")
    with _table():
        async with connection.transaction():
            # Locked first: whoever handles a batch takes the locks in this order too, so the two cannot deadlock.
            if not await connection.fetchval(f"SELECT true FROM {_named(layout)} WHERE name = $1 FOR UPDATE", name):
                raise UnknownProjection(name)
            if clear is not None:
                try:
                    await clear(connection)
                except Exception as error:
                    raise ProjectionFailed(name, None, f"clearing for a reset failed: {first_line(error)}") from error
            forget = ", history = NULL" if await keeps_history(connection, layout) else ""
            await connection.execute(
                f"UPDATE {_named(layout)} SET position = $2, last_error = NULL, updated_at = pg_catalog.now(){forget} "
                "WHERE name = $1",
                name,
                to,
            )


async def accept(connection: asyncpg.Connection, layout: Layout, name: str) -> None:
    """Take what is visible up to the position for the projection's history."""
    with _table():
        if not await keeps_history(connection, layout):
            raise SchemaMissing("table projections has no room for a history: run `esx init` to make it")
        async with connection.transaction():
            position = await connection.fetchval(
                f"SELECT position FROM {_named(layout)} WHERE name = $1 FOR UPDATE", name
            )
            if position is None:
                raise UnknownProjection(name)
            beyond = await compare_kept(connection, layout, await look(connection, layout), None, position)
            if beyond is not None:
                raise beyond.error(position, projection=name)
            history = await history_at(connection, layout, position)
            await connection.execute(
                f"UPDATE {_named(layout)} SET history = $2::text::jsonb, last_error = NULL WHERE name = $1",
                name,
                history.to_json(),
            )


async def delete(connection: asyncpg.Connection, layout: Layout, name: str) -> None:
    """Forget the projection. Waits for the batch being handled."""
    with _table():
        if not await connection.fetchval(f"DELETE FROM {_named(layout)} WHERE name = $1 RETURNING true", name):
            raise UnknownProjection(name)


async def read_status(connection: Session, layout: Layout) -> list[ProjectionStatus]:
    """Return the state of all projections by name; costs the same at any size of the store.

    Lag counts events that are visible and not handled. So a reader stuck before a gap lags by all that is visible
    beyond it, however near the gap; and numbers at the end that no event will ever have, burned by rollbacks and
    lost races, are no lag, although the head counts them.
    """
    await connection.read_views()  # projections is one
    with _table():
        rows = await connection.fetch(_status_sql(layout, kept=await keeps_history(connection, layout)))
    here = await look(connection, layout)
    writers = (
        tuple(Writer._make(row) for row in await connection.fetch(writers_sql(layout)))
        if any(row["gap"] for row in rows)
        else ()
    )
    return [
        ProjectionStatus(
            name=row["name"],
            position=row["position"],
            head=row["head"],
            lag=row["counted"] if row["counted"] <= _COUNTED else max(row["last"] - row["position"], row["counted"]),
            lag_seconds=max(row["seconds"], 0.0),
            paused=row["paused"],
            owner=None
            if row["pid"] is None
            else ProjectionOwner(row["pid"], row["application_name"], row["client"], row["backend_start"]),
            held_by=writers if row["gap"] else (),
            last_error=row["last_error"],
            updated_at=row["updated_at"],
            difference=await compare_kept(connection, layout, here, row["history"], row["position"]),
        )
        for row in rows
    ]


def _status_sql(layout: Layout, *, kept: bool) -> str:
    table = layout.table
    # What is no time has no age.
    age = "0"
    if layout.timed:
        age = (
            "CASE WHEN isfinite(next.created_at) THEN extract(epoch FROM clock_timestamp() - next.created_at) "
            "ELSE 0 END"
        )
    return f"""
        SELECT p.name, p.position, p.paused, p.last_error, p.updated_at,
               {"p.history::text" if kept else "NULL"} AS history, head.head, head.last, lag.counted,
               {age}::float8 AS seconds,
               coalesce(next.global_seq > p.position + 1, false) AS gap,
               owner.pid, owner.application_name, owner.client, owner.backend_start
        FROM {layout.ours("projections")} p
        CROSS JOIN (
            SELECT greatest({layout.head()}, last.global_seq, 0) AS head, last.global_seq AS last
            FROM (SELECT max(global_seq) AS global_seq FROM {table}) last
        ) head
        LEFT JOIN LATERAL (
            SELECT e.global_seq, e.created_at FROM {table} e WHERE e.global_seq > p.position
            ORDER BY e.global_seq LIMIT 1
        ) next ON true
        CROSS JOIN LATERAL (
            SELECT count(*) AS counted FROM (
                SELECT 1 FROM {table} e WHERE e.global_seq > p.position ORDER BY e.global_seq LIMIT {_COUNTED + 1}
            ) visible
        ) lag
        LEFT JOIN LATERAL (
            SELECT l.pid, a.application_name, host(a.client_addr) AS client, a.backend_start
            FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'advisory' AND l.objsubid = 2
              AND l.classid = {lock_class(layout)}::oid AND l.objid = p.id::oid
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.granted
            LIMIT 1
        ) owner ON true
        ORDER BY p.name
    """

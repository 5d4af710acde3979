"""Notices a connection pooler, and refuses what cannot be done behind one."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import asyncpg

from esx.errors import StoreFailed
from esx.model import Notification
from esx.postgres.literals import quoted
from esx.postgres.session import Session
from esx.postgres.settings import limit_within

EXAMINATION = 1.0
_GLANCES = 5
_ONE_ROW = "SELECT 1"


@dataclass(frozen=True, slots=True)
class Pooler:
    """A connection pooler between esx and PostgreSQL."""

    certain: bool
    """Whether a connection was seen to change its session or to share it.

    If not, the pooler may keep a session for each connection. Then esx works too, only slower.
    """

    def __str__(self) -> str:
        if self.certain:
            return "a connection pooler lends sessions for one transaction at a time"
        return "a connection pooler stands before PostgreSQL, and may lend sessions for one transaction at a time"


async def apply_if_own(connection: Session, settings: Mapping[str, str]) -> bool:
    """Make the settings in the session if it belongs to the connection alone; return whether it does."""
    # At a stricter level a lost race would be a serialization failure, and a lock would not help.
    wanted = {"default_transaction_isolation": "read committed", **settings}
    values = {name: quoted(value) for name, value in wanted.items()}
    if "statement_timeout" in wanted:
        values["statement_timeout"] = limit_within(connection, "statement_timeout", int(wanted["statement_timeout"]))
    made = ", ".join(f"pg_catalog.set_config({quoted(name)}, {value}, false)" for name, value in values.items())
    # By the simple protocol, as a prepared statement would stay in the session.
    return await connection.execute(f"SELECT {made} WHERE {_is_pid(connection.get_server_pid())}") == _ONE_ROW


async def examine(first: Session, another: Callable[[], Awaitable[Session]]) -> Pooler:
    """Find out whether a connection moves to another session, or shares its session with a second one."""
    second = None
    try:
        # If each connection keeps its session, there may be none left for a second one.
        async with asyncio.timeout(EXAMINATION):
            second = await another()
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


async def refuse_behind_a_pooler(
    connection: asyncpg.Connection, pooler: Pooler, where: str, *, read_only: bool, notification: Notification
) -> None:
    """Raise StoreFailed for options that need a session of their own; `where` is the address, for messages."""
    if notification is not Notification.DOORBELL:
        raise StoreFailed(
            f"notification {notification.value!r} is a setting of the session, but at {where} "
            f"{pooler}: connect to PostgreSQL itself"
        )
    isolation = await connection.fetchval("SELECT current_setting('default_transaction_isolation')")
    if isolation != "read committed" and not read_only:
        raise StoreFailed(
            f"transactions at {where} are {isolation}, and as {pooler}, esx cannot change that: "
            "ALTER ROLE or ALTER DATABASE ... SET default_transaction_isolation = 'read committed', or connect to "
            "PostgreSQL itself"
        )


async def _has_pid(connection: Session, pid: int) -> bool:
    return await connection.execute(f"SELECT 1 WHERE {_is_pid(pid)}") == _ONE_ROW


def _is_pid(pid: int) -> str:
    return f"pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {pid}"

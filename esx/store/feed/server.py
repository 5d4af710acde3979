"""Which server a connection leads to."""

from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from esx.layouts.layout import Layout


class Server(NamedTuple):
    """A server, with None for what this user may not ask.

    `system` is the identifier from initdb, which standbys share; `timeline` grows with each promotion.
    """

    system: int | None
    timeline: int | None


@dataclass(frozen=True, slots=True)
class Here:
    """What a connection leads to. `recovering`: a standby. `ledger`: the table erased_events can be read."""

    server: Server
    recovering: bool
    ledger: bool


async def read_server(connection: asyncpg.Connection, layout: Layout) -> Server:
    """Return which server a connection leads to."""
    return (await look(connection, layout)).server


async def look(connection: asyncpg.Connection, layout: Layout) -> Here:
    """Return what a connection leads to.

    It checks the user's rights first, as a refused statement would end the transaction around it.
    """
    rights = await connection.fetchrow(_RIGHTS, layout.ours("erased_events"))
    assert rights is not None
    recovering, ledger, may_system, may_checkpoint, may_recovery, may_wal = rights
    system = "(SELECT system_identifier FROM pg_control_system())" if may_system else None
    timeline = None
    if not recovering:
        # The control file shows a promotion only after the next checkpoint, the name of the WAL file at once.
        timeline = "('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)" if may_wal else None
    elif may_recovery and may_checkpoint:
        # The timeline up to which it has certainly replayed: nothing of an earlier one can follow.
        timeline = (
            "coalesce(nullif((SELECT min_recovery_end_timeline FROM pg_control_recovery()), 0), "
            "(SELECT timeline_id FROM pg_control_checkpoint()))"
        )
    return Here(Server(await _answer(connection, system), await _answer(connection, timeline)), recovering, ledger)


def _may(function: str) -> str:
    return f"coalesce(has_function_privilege(to_regprocedure('pg_catalog.{function}')::oid, 'EXECUTE'), false)"


_RIGHTS = f"""
    SELECT pg_is_in_recovery(), coalesce(has_table_privilege(ledger.attrelid, 'SELECT'), false),
           {_may("pg_control_system()")}, {_may("pg_control_checkpoint()")}, {_may("pg_control_recovery()")},
           {_may("pg_current_wal_lsn()")} AND {_may("pg_walfile_name(pg_lsn)")}
    FROM (SELECT 1) one
    LEFT JOIN pg_attribute ledger ON ledger.attrelid = to_regclass($1) AND ledger.attname = 'numbers'
                                 AND ledger.atttypid = to_regtype('pg_catalog.int8multirange')
"""


async def _answer(connection: asyncpg.Connection, question: str | None) -> int | None:
    """Return a number; None without a question, or if the server refuses, as some hosted ones do."""
    if question is None:
        return None
    # A refusal must not end the transaction around it, which may be one that asyncpg did not begin.
    within = connection.is_in_transaction()
    if within:
        await connection.execute("SAVEPOINT esx_asked")
    try:
        answer: int | None = await connection.fetchval(f"SELECT {question}::bigint")
    except _REFUSALS:
        if within:
            await connection.execute("ROLLBACK TO SAVEPOINT esx_asked")
        return None
    if within:
        await connection.execute("RELEASE SAVEPOINT esx_asked")
    return answer


_REFUSALS = (
    asyncpg.FeatureNotSupportedError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.UndefinedFunctionError,
)

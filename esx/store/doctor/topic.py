"""A topic: facts read from the database in a query or two, and the checks that judge them.

Reading and judging are apart, so that each check is a plain function of facts. A topic that cannot be read, say
for a lock or a missing right, becomes a finding and keeps no other topic from being examined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import asyncpg

from esx.store.careful import readable
from esx.store.connection import limit_within
from esx.store.doctor.finding import About, identifier, literal, shown
from esx.store.driver import first_line, is_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from esx.store.careful import Fetch
    from esx.store.connection import Session
    from esx.store.doctor.finding import Finding
    from esx.store.doctor.target import Target

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Topic(Generic[F]):
    """`read` returns the facts, and each of `checks` judges them; `name` is used only if reading fails.

    `table` is the one that it is about, None for the table that is examined.
    """

    name: str
    read: Callable[[Session, Target], Awaitable[F]]
    checks: tuple[Callable[[F], Iterator[Finding]], ...]
    table: str | None = None

    async def examine(self, connection: Session, target: Target) -> tuple[F | None, list[Finding]]:
        """Return the facts, None if they cannot be read, and what the checks find in them."""
        table = self.table or target.table
        try:
            facts = await limited(connection, lambda session: self.read(session, target), QUICK)
        except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError) as error:
            failed = "could not be examined" if is_cancelled(error) else "could not be examined in time"
            return None, [
                About(self.name).error(
                    f"{failed}: {first_line(error)}",
                    f"SELECT pid, mode, granted FROM pg_locks WHERE relation = {literal(table)}::regclass;",
                )
            ]
        except asyncpg.InsufficientPrivilegeError as error:
            user = await connection.fetchval("SELECT current_user")
            return None, [
                About(self.name).unknown(
                    f"user {shown(user)} may not look: {first_line(error)}",
                    f"GRANT SELECT ON {table} TO {identifier(user)};",
                )
            ]
        return facts, [finding for check in self.checks for finding in check(facts)]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a topic may take, and how long it may wait for a lock; seconds, 0 for as long as it takes."""

    statement: float
    lock: float


QUICK = Limits(statement=3.0, lock=0.5)
THOROUGH = Limits(statement=0.0, lock=0.5)


async def limited(connection: Session, read: Callable[[Session], Awaitable[F]], limits: Limits) -> F:
    """Run `read` in a read-only transaction of its own, within the limits."""
    async with connection.transaction(isolation="read_committed", readonly=True):
        await connection.resolve(guarded=True, restricted=connection.restricted)
        statement = limit_within(connection, "statement_timeout", round(limits.statement * 1000))
        lock = limit_within(connection, "lock_timeout", round(limits.lock * 1000))
        await connection.execute(
            f"SELECT set_config('statement_timeout', {statement}, true), set_config('lock_timeout', {lock}, true)"
        )
        try:
            return await read(connection)
        finally:
            connection.transaction_ends()


async def limited_names(connection: Session, read: Callable[[Fetch], Awaitable[F]], limits: Limits) -> F:
    """Do as `limited` what reads names, which may be no text: `read` runs its queries by the function it is given."""
    return await readable(connection, lambda fetch: limited(connection, lambda _: read(fetch), limits))

"""A topic: facts that are read from the database in a query or two, and the checks of these facts.

Each check is a plain function of facts. If a topic cannot be read, for example because of a lock or a missing right,
that is a finding, and the other topics are still examined.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import asyncpg

from esx.doctor.finding import About, Finding, shown
from esx.doctor.target import Examined
from esx.postgres.driver_errors import first_line, is_cancelled
from esx.postgres.literals import identifier, literal
from esx.postgres.session import Session
from esx.postgres.settings import limit_within
from esx.postgres.values import Fetch, current, readable

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Topic(Generic[F]):
    """`read` returns the facts for `checks`; `name` is the check of the finding if reading fails.

    `table` is the table that it is about, None for the table that is examined.
    """

    name: str
    read: Callable[[Session, Examined], Awaitable[F]]
    checks: tuple[Callable[[F], Iterator[Finding]], ...]
    table: str | None = None

    async def examine(self, connection: Session, target: Examined, findings: list[Finding]) -> F | None:
        """Return the facts, None if they cannot be read; add the findings of the checks to `findings`."""
        table = self.table or target.table
        try:
            facts = await limited(connection, lambda session: self.read(session, target), QUICK)
        except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError) as error:
            failed = "could not be examined" if is_cancelled(error) else "could not be examined in time"
            findings.append(
                About(self.name).error(
                    f"{failed}: {first_line(error)}",
                    f"SELECT pid, mode, granted FROM pg_locks WHERE relation = {literal(table)}::regclass;",
                )
            )
            return None
        except asyncpg.InsufficientPrivilegeError as error:
            user = await connection.fetchval("SELECT current_user")
            findings.append(
                About(self.name).unknown(
                    f"user {shown(user)} may not look: {first_line(error)}",
                    f"GRANT SELECT ON {table} TO {identifier(user)};",
                )
            )
            return None
        findings += [finding for check in self.checks for finding in check(facts)]
        return facts


@dataclass(frozen=True, slots=True)
class Limits:
    """How many seconds a topic may take and may wait for a lock; 0 for no limit."""

    statement: float
    lock: float


QUICK = Limits(statement=3.0, lock=0.5)
THOROUGH = Limits(statement=0.0, lock=0.5)


async def limited(connection: Session, read: Callable[[Session], Awaitable[F]], limits: Limits) -> F:
    """Run `read` in a read-only transaction of its own, within the limits."""
    return await current(connection, lambda: _limited(connection, read, limits))


async def _limited(connection: Session, read: Callable[[Session], Awaitable[F]], limits: Limits) -> F:
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
    """Do as `limited`, for names that may be no text: `read` runs its queries with the function that it gets."""
    return await readable(connection, lambda fetch: limited(connection, lambda _: read(fetch), limits))

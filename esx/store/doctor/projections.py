"""The projections: whether each moves on, and how far behind it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import asyncpg

from esx.store.doctor.finding import About, duration, literal, shown
from esx.store.driver import first_line
from esx.store.layout import Layout
from esx.store.schema import schema_sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from esx.store.doctor.finding import Finding
    from esx.store.projection_table import ProjectionStatus

_STUCK = 60.0  # seconds
_TABLE = re.compile(r"^CREATE TABLE IF NOT EXISTS projections \((.*?)^\);", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r"^\s+(\w+)\s+(.+?),?$", re.MULTILINE)
# Without these a row says nothing: whose position it is, or which.
_NEVER_ADDED = ("name", "position")
_NOT_OURS = "it was not made by schema.sql"
_UNLIKE = (asyncpg.UndefinedFunctionError, asyncpg.DatatypeMismatchError, asyncpg.CannotCoerceError)


@dataclass(frozen=True, slots=True)
class Projections:
    """Their states, and the server's clock; `problem` says why they cannot be read, `remedy` what to do about it."""

    statuses: tuple[ProjectionStatus, ...] = ()
    now: datetime | None = None
    problem: str | None = None
    remedy: tuple[str, ...] = ()


@cache
def expected() -> Mapping[str, str]:
    """Return the columns of the table as schema.sql defines them, by name."""
    table = _TABLE.search(schema_sql())
    assert table is not None
    return {name: " ".join(definition.split()) for name, definition in _COLUMN.findall(table[1])}


async def read_projections(connection: asyncpg.Connection) -> Projections:
    """Read the checkpoints, if there are any; a missing table is said by the check of tables."""
    from esx.store.projection_table import read_status

    columns = await connection.fetch(
        """
        SELECT attname FROM pg_attribute
        WHERE attrelid = to_regclass('projections') AND attnum > 0 AND NOT attisdropped
        """
    )
    if not columns:
        return Projections()
    missing = [name for name in expected() if name not in {row[0] for row in columns}]
    if missing:
        problem = f"table projections has no column {', '.join(missing)}"
        if any(name in _NEVER_ADDED for name in missing):
            return Projections(problem=f"{problem}: {_NOT_OURS}", remedy=await _make_another(connection))
        added = ", ".join(f"ADD COLUMN {name} {expected()[name]}" for name in missing)
        return Projections(problem=problem, remedy=(f"ALTER TABLE projections {added};",))
    # Asked for first: once a query has failed, the transaction answers no more.
    away = await _make_another(connection)
    try:
        statuses = await read_status(connection, Layout())
    except _UNLIKE as error:
        return Projections(problem=f"table projections: {shown(first_line(error))}: {_NOT_OURS}", remedy=away)
    return Projections(tuple(statuses), await connection.fetchval("SELECT clock_timestamp()"))


async def _make_another(connection: asyncpg.Connection) -> tuple[str, ...]:
    """Return what renames the table to a name that is free, and makes a new one."""
    free = await connection.fetchval(
        """
        SELECT name FROM (SELECT n, 'projections_old' || coalesce(n::text, '') AS name
                          FROM unnest(NULL::int || ARRAY(SELECT generate_series(2, 99))) n) names
        WHERE to_regclass(name) IS NULL ORDER BY n NULLS FIRST LIMIT 1
        """
    )
    return (f"ALTER TABLE projections RENAME TO {free};", "esx init")


def progress(projections: Projections) -> Iterator[Finding]:
    """Check that each projection moves on."""
    found = About("projections")
    if projections.problem is not None:
        yield found.warning(projections.problem, *projections.remedy)
        return
    for status in projections.statuses:
        finding = _judge(found, status, projections.now)
        if finding is not None:
            yield finding
    if not projections.statuses:
        yield found.ok("there are no projections")
    else:
        furthest = max(projections.statuses, key=lambda status: status.lag)
        yield found.ok(f"{len(projections.statuses)} looked at; furthest behind is {_lag(furthest)}")


def _judge(found: About, status: ProjectionStatus, now: datetime | None) -> Finding | None:
    name = literal(status.name)
    if status.position > status.head:
        return found.error(
            f"projection {shown(status.name)} is at {status.position}, beyond the head {status.head}: it would miss "
            "the events up to there (was the database restored without it?)",
            f"UPDATE projections SET position = {status.head} WHERE name = {name};",
        )
    if status.last_error is not None:
        return found.error(
            f"projection {shown(status.name)} failed at the event after {status.position}: {shown(status.last_error)}",
            f"esx read '$all' --from {status.position + 1} --limit 1",
        )
    if status.paused:
        return found.info(
            f"projection {_lag(status)}, is paused", f"UPDATE projections SET paused = false WHERE name = {name};"
        )
    still = (now - status.updated_at).total_seconds() if now is not None else 0.0
    if not status.lag or status.lag_seconds < _STUCK or still < _STUCK:
        return None
    since = f"and has not moved for {duration(still)}"
    if status.held_by:
        # Which writers, and how to end them, is said by the check of writers.
        pids = ", ".join("a prepared transaction" if w.pid is None else f"pid {w.pid}" for w in status.held_by)
        remedy = tuple(f"SELECT pg_terminate_backend({w.pid});" for w in status.held_by if w.pid is not None)
        return found.warning(f"projection {_lag(status)}, {since}: {pids} may still fill a gap before it", *remedy)
    if status.owner is not None:
        return found.warning(
            f"projection {_lag(status)}, {since}, though pid {status.owner.pid} runs it",
            f"SELECT pg_terminate_backend({status.owner.pid});",
        )
    return found.warning(f"projection {_lag(status)}, {since}: nobody runs it; start its program")


def _lag(status: ProjectionStatus) -> str:
    behind = f"{'' if status.lag_exact else 'about '}{status.lag:,} events behind"
    if status.lag:
        behind += f" ({duration(status.lag_seconds)})"
    return f"{shown(status.name)}, at {status.position}, {behind}"


CHECKS = (progress,)

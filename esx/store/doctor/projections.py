"""The projections: whether each moves on, and how far behind it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esx.store.doctor.finding import About, duration, literal, shown
from esx.store.errors import SchemaMissing
from esx.store.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import asyncpg

    from esx.store.doctor.finding import Finding
    from esx.store.projection_table import ProjectionStatus

_STUCK = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Projections:
    """Their states, and the server's clock; `problem` says why they cannot be read."""

    statuses: tuple[ProjectionStatus, ...] = ()
    now: datetime | None = None
    problem: str | None = None


async def read_projections(connection: asyncpg.Connection) -> Projections:
    """Read the checkpoints, if there are any; a missing table is said by the check of tables."""
    from esx.store.projection_table import read_status

    if not await connection.fetchval("SELECT to_regclass('projections') IS NOT NULL"):
        return Projections()
    try:
        statuses = await read_status(connection, Layout())
    except SchemaMissing as error:
        return Projections(problem=str(error))
    return Projections(tuple(statuses), await connection.fetchval("SELECT clock_timestamp()"))


def progress(projections: Projections) -> Iterator[Finding]:
    """Check that each projection moves on."""
    found = About("projections")
    if projections.problem is not None:
        yield found.warning(projections.problem, "esx init")
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

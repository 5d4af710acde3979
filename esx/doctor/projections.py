"""The projections: whether they move, and how far behind they are."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import asyncpg

from esx.doctor.finding import About, Finding, duration, shown
from esx.doctor.target import Examined
from esx.doctor.topic import Topic
from esx.layouts.detection import detect_layout
from esx.layouts.init import schema_sql
from esx.postgres.driver_errors import first_line
from esx.postgres.literals import literal
from esx.postgres.session import Session
from esx.store.consume.report import ProjectionStatus
from esx.store.consume.status import read_status
from esx.store.feed.comparison import Difference, DifferenceKind
from esx.text import counted

_STUCK = 60.0  # seconds
_TABLE = re.compile(r"^CREATE TABLE IF NOT EXISTS consumers \((.*?)^\);", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r"^\s+(\w+)\s+(.+?),?$", re.MULTILINE)
# Without these columns a row is useless.
_NEVER_ADDED = ("name", "position")
# Version 1 of the schema does not have these; the check of tables reports that it is old.
_SINCE_2 = ("kind", "history")
# Version 2 does not have these.
_SINCE_3 = (*("error_seq", "failed_at", "rate", "host", "pid", "since", "backend", "seen_at", "start", "filter"),)
_NOT_OURS = "it was not made by schema.sql"
_UNLIKE = (asyncpg.UndefinedFunctionError, asyncpg.DatatypeMismatchError, asyncpg.CannotCoerceError)


@dataclass(frozen=True, slots=True)
class ProjectionFacts:
    """Their statuses, and the server's clock; `problem` says why they cannot be read, with its `remedy`."""

    statuses: tuple[ProjectionStatus, ...] = ()
    now: datetime | None = None
    problem: str | None = None
    remedy: tuple[str, ...] = ()
    keeps_history: bool = True
    version_2: bool = False


@cache
def expected() -> Mapping[str, str]:
    """Return the columns of the table as schema.sql defines them, by name."""
    table = _TABLE.search(schema_sql())
    assert table is not None
    return {name: " ".join(definition.split()) for name, definition in _COLUMN.findall(table[1])}


async def read_projections(connection: Session, target: Examined) -> ProjectionFacts:
    """Read the checkpoints, if there are any; the check of tables reports a missing table."""
    columns = await connection.fetch(
        f"""
        SELECT attname, {target.spelled("attrelid")},
               (SELECT relkind::text FROM pg_class WHERE oid = to_regclass($2))
        FROM pg_attribute
        WHERE attrelid = coalesce(to_regclass($1), to_regclass($2)) AND attnum > 0 AND NOT attisdropped
        """,
        target.ours("consumers"),
        target.ours("projections"),
    )
    if not columns:
        return ProjectionFacts()
    table, kind = columns[0][1:]
    newer = table != "projections"
    there = {row[0] for row in columns}
    version_2 = newer and there.isdisjoint(_SINCE_3)
    later = (*_SINCE_2, *_SINCE_3) if not newer else _SINCE_3 if version_2 else ()
    missing = [name for name in expected() if name not in there and name not in later]
    if missing:
        problem = f"table {shown(table)} has no column {', '.join(missing)}"
        if any(name in _NEVER_ADDED for name in missing):
            return ProjectionFacts(
                problem=f"{problem}: {_NOT_OURS}", remedy=await _make_another(connection, target, table, kind)
            )
        added = ", ".join(f"ADD COLUMN {name} {expected()[name]}" for name in missing)
        return ProjectionFacts(
            problem=problem, remedy=(f"ALTER TABLE {table} {added};", *(("esx init",) if newer else ()))
        )
    # Before the query that may fail, as the transaction is over after that.
    away = await _make_another(connection, target, table, kind)
    if kind is None:
        return ProjectionFacts(
            problem="there is no view projections, by which esx reads its table", remedy=("esx init",)
        )
    try:
        statuses = await read_status(connection, await detect_layout(connection))
    except _UNLIKE as error:
        return ProjectionFacts(problem=f"table {shown(table)}: {shown(first_line(error))}: {_NOT_OURS}", remedy=away)
    now = await connection.fetchval("SELECT clock_timestamp()")
    return ProjectionFacts(tuple(statuses), now, keeps_history=newer, version_2=version_2)


async def _make_another(connection: Session, target: Examined, table: str, kind: str | None) -> tuple[str, ...]:
    """Return what renames the table to an unused name, and makes a new one; `kind` is that of projections."""
    free = await connection.fetchval(
        """
        SELECT name FROM (SELECT n, $1 || '_old' || coalesce(n::text, '') AS name
                          FROM unnest(NULL::int || ARRAY(SELECT generate_series(2, 99))) n) names
        WHERE to_regclass($2 || name) IS NULL ORDER BY n NULLS FIRST LIMIT 1
        """,
        table,
        target.ours(""),
    )
    view = ("DROP VIEW projections;",) if kind == "v" else ()
    return (*view, f"ALTER TABLE {table} RENAME TO {free};", "esx init")


def progress(projections: ProjectionFacts) -> Iterator[Finding]:
    """Check that each projection moves."""
    found = About("projections")
    if projections.problem is not None:
        yield found.warning(projections.problem, *projections.remedy)
        return
    for status in projections.statuses:
        finding = _finding(found, status, projections)
        if finding is not None:
            yield finding
    if projections.version_2:
        yield found.info(
            "the schema has version 2: who runs them, and where events are put aside, is not kept", "esx init"
        )
    if not projections.statuses:
        yield found.ok("there are no projections")
    else:
        furthest = max(projections.statuses, key=lambda status: status.lag)
        yield found.ok(f"{len(projections.statuses)} looked at; furthest behind is {_lag(furthest)}")


def _finding(found: About, status: ProjectionStatus, projections: ProjectionFacts) -> Finding | None:
    name, now = literal(status.name), projections.now
    if status.difference is not None:
        return _another(found, status, status.difference, keeps_history=projections.keeps_history)
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
    age = still if status.lag_seconds is None else status.lag_seconds
    if not status.lag or age < _STUCK or still < _STUCK:
        return None
    since = f"and has not moved for {duration(still)}"
    if status.held_by:
        # The check of writers says more about them.
        pids = ", ".join("a prepared transaction" if w.pid is None else f"pid {w.pid}" for w in status.held_by)
        remedy = tuple(f"SELECT pg_terminate_backend({w.pid});" for w in status.held_by if w.pid is not None)
        return found.warning(f"projection {_lag(status)}, {since}: {pids} may still fill a gap before it", *remedy)
    if status.owner is not None:
        return found.warning(
            f"projection {_lag(status)}, {since}, though pid {status.owner.pid} runs it",
            f"SELECT pg_terminate_backend({status.owner.pid});",
        )
    return found.warning(f"projection {_lag(status)}, {since}: no program runs it; start one")


def _another(found: About, status: ProjectionStatus, difference: Difference, *, keeps_history: bool) -> Finding:
    """Report how the store differs from what a projection has read; the remedy rebuilds it."""
    message = f"projection {shown(status.name)} is at {status.position}, the head at {status.head}: {difference}"
    if difference.kind is DifferenceKind.BEHIND:
        return found.info(message)
    if status.beyond:
        skips = f"SKIPS events 1 to {status.head}" if status.head else "skips nothing"
        other = f"store.reset_projection({status.name!r}, to={status.head}) {skips}"
    elif difference.kind is DifferenceKind.CHANGED:
        other = f"store.accept_history({status.name!r}) SKIPS what is there now up to {status.position}"
    else:
        other = f"store.accept_history({status.name!r}) goes on, and KEEPS what was made of them"
    return found.error(
        f"{message}; {other}",
        "/* REBUILDS: empty its read model in the same transaction */ UPDATE projections SET position = 0, "
        f"{'history = NULL, ' if keeps_history else ''}last_error = NULL WHERE name = {literal(status.name)};",
    )


def _lag(status: ProjectionStatus) -> str:
    behind = f"{'' if status.lag_exact else 'about '}{counted(status.lag, 'event')} behind"
    if status.lag and status.lag_seconds is not None:
        behind += f" ({duration(status.lag_seconds)})"
    return f"{shown(status.name)}, at {status.position}, {behind}"


TOPIC = Topic("projections", read_projections, (progress,), "projections")

"""The order in which the topics are examined, and which of them make sense."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from esx.store.doctor import (
    activity,
    draws,
    indexes,
    order,
    partitions,
    projections,
    scan,
    sequence,
    server,
    table,
    trigger,
)
from esx.store.doctor.target import Target, find_target
from esx.store.doctor.topic import QUICK, THOROUGH, Topic, limited, limited_names
from esx.store.estimating import count_events
from esx.store.layout import Layout
from esx.store.scope import Scope

if TYPE_CHECKING:
    from esx.store.connection import Pooler, Session
    from esx.store.doctor.finding import Finding
    from esx.store.doctor.indexes import Indexes
    from esx.store.doctor.scan import OnProgress
    from esx.store.doctor.table import Table

_TABLE = Topic("table", table.read_table, table.CHECKS)
_ORDER = Topic("order", order.read_order, order.CHECKS)
_INDEXES = Topic("indexes", indexes.read_indexes, indexes.CHECKS)
_PARTITIONS = Topic("partitions", partitions.read_partitions, partitions.CHECKS)
_SEQUENCE = Topic("sequence", sequence.read_sequence, sequence.CHECKS)
_DRAWS = Topic("draws", draws.read_draws, draws.CHECKS)
_OBJECTS = Topic("objects", trigger.read_objects, trigger.CHECKS)
_ACTIVITY = Topic("activity", activity.read_activity, activity.CHECKS)
_PROJECTIONS = Topic("projections", projections.read_projections, projections.CHECKS, "projections")
_SERVER = Topic("server", server.read_server, server.CHECKS)


async def diagnose(
    connection: Session,
    *,
    store: str | None = None,
    pooler: Pooler | None = None,
    full: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Finding]:
    """Run all checks on the table events, or on the `store` that was named, and return what they find.

    There is at least one finding for each check that applies. Quick: no scan, and no waiting for locks. With `full`
    every event is looked at too, and `on_progress` is told how far that has come. Nothing is written, so a read-only
    session and a standby do. Of a view, the one table that it reads is examined, if it has the columns of one.
    """
    named = await limited(connection, lambda session: find_target(session, store), QUICK)
    facts, findings = await _TABLE.examine(connection, named)
    target = named
    if facts is not None and facts.columns is not None and (named.is_table or named.named):
        findings += (await _ORDER.examine(connection, named))[1]
        if isinstance(named.base, Target):
            target = named.base
            facts = (await _TABLE.examine(connection, target))[0]
    usable = facts is not None and facts.usable
    found: Indexes | None = None
    numbers: sequence.Sequence | None = None
    if usable:
        found, about = await _INDEXES.examine(connection, target)
        findings += about
        findings += (await _PARTITIONS.examine(connection, target))[1]
        numbers, about = await _SEQUENCE.examine(connection, target)
        findings += about
        findings += (await _DRAWS.examine(connection, target))[1]
        findings += (await _OBJECTS.examine(connection, target))[1]
        if named.own:
            findings += (await _PROJECTIONS.examine(connection, target))[1]
    findings += (await _ACTIVITY.examine(connection, target))[1]
    findings += (await _SERVER.examine(connection, named))[1]
    findings += server.pooling(pooler)
    if full and facts is not None and usable and found is not None and facts.analysed is not None:
        findings += await _look_at_events(connection, facts, found, on_progress)
        if not indexes.keeps_numbers_unique(found):
            findings += await _look_at_numbers(connection, target, numbers, on_progress)
    return findings


async def _look_at_events(
    connection: Session, facts: Table, found: Indexes, on_progress: OnProgress | None
) -> list[Finding]:
    tell = on_progress or (lambda _text: None)
    target = facts.target
    timed = facts.timed
    findings: list[Finding] = []
    if indexes.in_stream_order(found):
        total = await _total(connection, target, found)
        scanned = await scan.scan_streams(connection, target, total, on_progress, timed=timed)
    else:
        tell("looking for places in a stream that are taken twice")
        findings += await limited_names(connection, lambda fetch: scan.scan_keys(fetch, target), THOROUGH)
        tell("sorting the events: no unique index gives the order of streams")
        scanned = await limited_names(
            connection, lambda fetch: scan.scan_by_sorting(connection, fetch, target, timed=timed), THOROUGH
        )
    findings += [finding for check in scan.CHECKS for finding in check(scanned)]
    if "event_id" in (facts.columns or {}) and not indexes.keeps_event_ids_unique(found):
        tell("looking for event ids that are stored twice")
        findings += await limited(connection, lambda session: scan.scan_event_ids(session, target), THOROUGH)
    return findings


async def _total(connection: Session, target: Target, found: Indexes) -> str:
    """Return of how many events, as far as that can be told soon and not far off."""
    if not indexes.keeps_numbers_unique(found):
        return ""
    events = await count_events(connection, Layout(table=target.quoted), Scope())
    return f" of {events.text}" if events.known else ""


async def _look_at_numbers(
    connection: Session,
    target: Target,
    numbers: sequence.Sequence | None,
    on_progress: OnProgress | None,
) -> list[Finding]:
    tell = on_progress or (lambda _text: None)
    tell("looking for numbers that are taken twice")
    findings = await limited(connection, lambda session: scan.scan_numbers(session, target), THOROUGH)
    if numbers is not None and not numbers.probed:
        tell("looking for the lowest number")
        lowest = await limited(connection, lambda session: sequence.read_lowest(session, target), THOROUGH)
        findings += sequence.numbers(replace(numbers, probed=True, lowest=lowest))
    return findings

"""The order in which the topics are examined, and which of them make sense."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from esx.store.doctor import activity, indexes, projections, scan, sequence, server, table, trigger
from esx.store.doctor.topic import THOROUGH, Topic, limited
from esx.store.estimating import count_events
from esx.store.layout import Layout
from esx.store.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from esx.store.connection import Pooler
    from esx.store.doctor.finding import Finding
    from esx.store.doctor.indexes import Index
    from esx.store.doctor.scan import OnProgress
    from esx.store.doctor.table import Table

_TABLE = Topic("table", table.read_table, table.CHECKS)
_INDEXES = Topic("indexes", indexes.read_indexes, indexes.CHECKS)
_SEQUENCE = Topic("sequence", sequence.read_sequence, sequence.CHECKS)
_OBJECTS = Topic("objects", trigger.read_objects, trigger.CHECKS)
_ACTIVITY = Topic("activity", activity.read_activity, activity.CHECKS)
_PROJECTIONS = Topic("projections", projections.read_projections, projections.CHECKS, table="projections")
_SERVER = Topic("server", server.read_server, server.CHECKS)


async def diagnose(
    connection: asyncpg.Connection,
    *,
    pooler: Pooler | None = None,
    full: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Finding]:
    """Run all checks and return what they find, at least one finding for each that applies.

    Quick: no scan, and no waiting for locks. With `full` every event is looked at too, and `on_progress` is told
    how far that has come. Nothing is written, so a read-only session and a standby do.
    """
    facts, findings = await _TABLE.examine(connection)
    usable = facts is not None and facts.usable
    found: Sequence[Index] | None = None
    numbers: sequence.Sequence | None = None
    if usable:
        found, about = await _INDEXES.examine(connection)
        findings += about
        numbers, about = await _SEQUENCE.examine(connection)
        findings += about
        findings += (await _OBJECTS.examine(connection))[1]
        findings += (await _PROJECTIONS.examine(connection))[1]
    findings += (await _ACTIVITY.examine(connection))[1]
    findings += (await _SERVER.examine(connection))[1]
    findings += server.pooling(pooler)
    if full and facts is not None and usable and found is not None and facts.analysed is not None:
        findings += await _look_at_events(connection, facts, found, on_progress)
        if not indexes.keeps_numbers_unique(found):
            findings += await _look_at_numbers(connection, numbers, on_progress)
    return findings


async def _look_at_events(
    connection: asyncpg.Connection, facts: Table, found: Sequence[Index], on_progress: OnProgress | None
) -> list[Finding]:
    tell = on_progress or (lambda _text: None)
    findings: list[Finding] = []
    if indexes.in_stream_order(found):
        scanned = await scan.scan_streams(connection, await _total(connection, found), on_progress)
    else:
        tell("looking for places in a stream that are taken twice")
        findings += await limited(connection, scan.scan_keys, THOROUGH)
        tell("sorting the events: no unique index gives the order of streams")
        scanned = await limited(connection, scan.scan_by_sorting, THOROUGH)
    findings += [finding for check in scan.CHECKS for finding in check(scanned)]
    if "event_id" in (facts.columns or {}) and not indexes.keeps_event_ids_unique(found):
        tell("looking for event ids that are stored twice")
        findings += await limited(connection, scan.scan_event_ids, THOROUGH)
    return findings


async def _total(connection: asyncpg.Connection, found: Sequence[Index]) -> str:
    """Return of how many events, as far as that can be told soon and not far off."""
    if not indexes.keeps_numbers_unique(found):
        return ""
    events = await count_events(connection, Layout(), Scope())
    return f" of {events.text}" if events.known else ""


async def _look_at_numbers(
    connection: asyncpg.Connection, numbers: sequence.Sequence | None, on_progress: OnProgress | None
) -> list[Finding]:
    tell = on_progress or (lambda _text: None)
    tell("looking for numbers that are taken twice")
    findings = await limited(connection, scan.scan_numbers, THOROUGH)
    if numbers is not None and not numbers.probed:
        tell("looking for the lowest number")
        lowest = await limited(connection, sequence.read_lowest, THOROUGH)
        findings += sequence.numbers(replace(numbers, probed=True, lowest=lowest))
    return findings

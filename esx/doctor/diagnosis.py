"""Examines a store: the order of the topics, and which of them apply."""

from dataclasses import replace

from esx.doctor import (
    activity,
    draws,
    indexes,
    objects,
    order,
    other_stores,
    partitions,
    projections,
    scan,
    sequence,
    server,
    table,
)
from esx.doctor.finding import Finding, Severity
from esx.doctor.index_facts import Indexes
from esx.doctor.scan import OnProgress
from esx.doctor.table import Table
from esx.doctor.target import Examined, Thresholds, find_target
from esx.doctor.topic import QUICK, THOROUGH, limited, limited_names
from esx.layouts.layout import Layout
from esx.layouts.trust import check_owners
from esx.postgres.literals import identifier
from esx.postgres.pooler import Pooler
from esx.postgres.session import Session
from esx.store.read.estimates import count_events
from esx.store.read.event_list import EventList
from esx.text import visible


async def check_target(connection: Session, store: str | None) -> None:
    """Raise OwnerNotTrusted as `check_owners` does, also for a relation that is not a readable store."""

    async def check(session: Session) -> None:
        target = await find_target(session, store, Thresholds())
        if target.kind is not None:
            await check_owners(session, Layout(table=target.quoted, home=identifier(target.home), own=target.own))

    await limited(connection, check, QUICK)


async def diagnose(
    connection: Session,
    *,
    store: str | None = None,
    pooler: Pooler | None = None,
    full: bool = False,
    on_progress: OnProgress | None = None,
    thresholds: Thresholds | None = None,
) -> list[Finding]:
    """Run all checks on the table events, or on the `store` that was named, and return what they find.

    There is at least one finding for each check that applies. It is quick: no scan, and no wait for locks. With `full`
    it looks at each event too, and `on_progress` gets texts about the progress. It writes nothing, so it works in a
    read-only session and on a standby. For a view, the table that it reads is examined, if that is an events table.
    """
    tell = on_progress or (lambda _text: None)
    named = await limited(connection, lambda session: find_target(session, store, thresholds or Thresholds()), QUICK)
    findings: list[Finding] = []
    facts = await table.TOPIC.examine(connection, named, findings)
    target = named
    if facts is not None and facts.columns is not None and (named.is_table or named.named):
        await order.TOPIC.examine(connection, named, findings)
        if isinstance(named.base, Examined):
            target = named.base
            facts = await table.TOPIC.examine(connection, target, [])
    found: Indexes | None = None
    numbers: sequence.Sequence | None = None
    if facts is not None and facts.usable:
        found = await indexes.TOPIC.examine(connection, target, findings)
        await partitions.TOPIC.examine(connection, target, findings)
        numbers = await sequence.TOPIC.examine(connection, target, findings)
        await draws.TOPIC.examine(connection, target, findings)
        await objects.TOPIC.examine(connection, target, findings)
        if named.own:
            await projections.TOPIC.examine(connection, target, findings)
    await activity.TOPIC.examine(connection, target, findings)
    await server.TOPIC.examine(connection, named, findings)
    findings += server.pooling(pooler)
    if full and facts is not None and found is not None and facts.analysed is not None:
        findings += await _look_at_events(connection, facts, found, tell)
        if not found.keeps_unique("global_seq"):
            findings += await _look_at_numbers(connection, target, numbers, tell)
    return findings


async def diagnose_foreign(
    connection: Session,
    layout: Layout | None,
    refused: str | None,
    pooler: Pooler | None,
    thresholds: Thresholds | None,
    *,
    trust_owner: bool = False,
) -> list[Finding]:
    """Run the checks that hold for the store of another tool too, and those of its kind.

    Without a layout, `refused` says why esx cannot read it.
    """
    limits = thresholds or Thresholds()
    if layout is None or layout.foreign is None:
        target = Examined(kind=None, named=True, own=False, thresholds=limits)
        findings = [Finding("table", Severity.ERROR, refused or "", ("esx stores",))]
    else:
        called, kind = layout.called, layout.foreign.kind
        rows = layout.tables if layout.parts else ""
        target = Examined(
            called, layout.kind, called, named=True, own=False, read_only=True, rows=rows, thresholds=limits
        )
        about = f"{visible(called, limit=200)} belongs to a store of {kind.title}, which esx only reads"
        findings = [Finding("table", Severity.OK, about)]
        if kind.caution is not None:
            findings.append(Finding("order", Severity.INFO, kind.caution))
        await other_stores.examine(connection, layout, target, findings, trust_owner=trust_owner)
    await activity.TOPIC.examine(connection, target, findings)
    await server.TOPIC.examine(connection, target, findings)
    return [*findings, *server.pooling(pooler)]


async def _look_at_events(connection: Session, facts: Table, found: Indexes, tell: OnProgress) -> list[Finding]:
    target = facts.target
    timed = facts.timed
    findings: list[Finding] = []
    if found.in_stream_order:
        total = await _total(connection, target, found)
        scanned = await scan.scan_streams(connection, target, total, tell, timed=timed)
    else:
        tell("looking for places in a stream that are taken twice")
        findings += await limited_names(connection, lambda fetch: scan.scan_keys(fetch, target), THOROUGH)
        tell("sorting the events: no unique index gives the order of streams")
        scanned = await limited_names(
            connection, lambda fetch: scan.scan_by_sorting(connection, fetch, target, timed=timed), THOROUGH
        )
    findings += [finding for check in scan.CHECKS for finding in check(scanned)]
    if "event_id" in (facts.columns or {}) and not found.keeps_unique("event_id"):
        tell("looking for event ids that are stored twice")
        findings += await limited(connection, lambda session: scan.scan_event_ids(session, target), THOROUGH)
    return findings


async def _total(connection: Session, target: Examined, found: Indexes) -> str:
    """Return a text such as `` of ~12,000``, empty if an estimate would be slow or far off."""
    if not found.keeps_unique("global_seq"):
        return ""
    events = await count_events(connection, Layout(table=target.quoted), EventList())
    return f" of {events.text}" if events.known else ""


async def _look_at_numbers(
    connection: Session,
    target: Examined,
    numbers: sequence.Sequence | None,
    tell: OnProgress,
) -> list[Finding]:
    tell("looking for numbers that are taken twice")
    findings = await limited(connection, lambda session: scan.scan_numbers(session, target), THOROUGH)
    if numbers is not None and not numbers.probed:
        tell("looking for the lowest number")
        lowest = await limited(connection, lambda session: sequence.read_lowest(session, target), THOROUGH)
        findings += sequence.numbers(replace(numbers, probed=True, lowest=lowest))
    return findings

"""esx health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from esx.cli.opening import with_store
from esx.cli.options import database_option, json_option, partial_option
from esx.cli.output import OutputLines, incomplete
from esx.text import ago, iso_utc, size_of
from esx.times import iso

if TYPE_CHECKING:
    from datetime import datetime

    from esx.eventstore import EventStore
    from esx.store.consume.others import ConsumerStatus, OtherConsumers
    from esx.store.consume.report import ProjectionStatus
    from esx.store.feed.batch import Writer
    from esx.store.health import Health

_MANY = 100
"""With fewer events, empty pages would weigh more than the events."""


@click.command(name="health")
@json_option
@partial_option
@database_option
def command(dsn: str | None, as_json: bool) -> None:
    """Print the state of the store in figures, in the same time at any size.

    Head, safe position, open writers, projections and their lag, notification, and sizes; for another tool's store, the
    consumers that it knows. `esx doctor` says what is wrong and how to repair it. Exits with 4 where this user may not
    read something.

    With --json it is one object. estimated_events is an estimate unless events_exact, and null where it may be off by
    more than a factor of two: then events_at_least is all that is known. head is the highest visible number unless
    head_exact. safe and lag are null where no position is safe (order_unknown says why). projections is null where
    this user may not read them. A projection's history is null while the store holds what it has read; else it says
    how the two differ. In the store of another tool without a global order head, first and last are null. consumers
    are those of another tool, whose lag counts numbers; position is null where they keep no number of the global order,
    and at is what they keep.
    """

    async def work(store: EventStore) -> None:
        from esx.errors import NotAllowed, SchemaMissing

        health = await store.health()
        safe = None if health.order_unknown else (await store.feed_from_end()).position
        projections: list[ProjectionStatus] | None
        try:
            projections = await store.projections()
        except SchemaMissing:  # a store that esx did not make
            projections = []
        except NotAllowed as error:
            projections = None
            incomplete(str(error))
        others = await store.other_consumers()
        for note in others.notes:
            incomplete(note)
        if not health.head_exact:
            incomplete("the head may be above: this user may not read the sequence, which takes GRANT SELECT on it")
        if any(writer.pid is not None and writer.since is None for writer in health.writers):
            incomplete(
                "since when others have been writing is not shown to this user: GRANT pg_read_all_stats shows it"
            )
        lines = OutputLines()
        if as_json:
            lines.value(_as_json(health, safe, projections, others, store.address))
        else:
            lines.text(*_as_text(health, safe, projections, others, store.address))

    with_store(dsn, work, read_only=True)


def _as_json(
    health: Health,
    safe: int | None,
    projections: list[ProjectionStatus] | None,
    others: OtherConsumers,
    address: str,
) -> dict[str, Any]:
    return {
        "at": iso_utc(health.at),
        "address": address,
        "server_version": health.server_version,
        "database": health.database,
        "user": health.user,
        "standby": health.recovering,
        "head": health.head if health.numbered else None,
        "head_exact": health.head_exact,
        "first": health.first if health.numbered else None,
        "last": health.last if health.numbered else None,
        "last_created_at": _time(health.last_created_at),
        "safe": safe,
        "lag": None if safe is None else max(health.head - safe, 0),
        "order_unknown": health.order_unknown,
        "kind": health.kind,
        "writers": [_writer(writer) for writer in health.writers],
        "projections": None if projections is None else [_projection(projection) for projection in projections],
        "consumers": [_consumer(status) for status in others.consumers],
        "doorbell": health.doorbell,
        "notify_queue": health.notify_queue,
        "estimated_events": health.events.count if health.events.known else None,
        "events_exact": health.events.exact,
        "events_at_least": health.events.low,
        "table_bytes": health.table_bytes,
        "index_bytes": health.index_bytes,
        "connections": health.connections,
        "max_connections": health.max_connections,
    }


def _writer(writer: Writer) -> dict[str, Any]:
    return {
        "pid": writer.pid,
        "since": _time(writer.since),
        "state": writer.state,
        "application": writer.application,
    }


def _projection(status: ProjectionStatus) -> dict[str, Any]:
    return {
        "name": status.name,
        "position": status.position,
        "beyond_head": status.beyond,
        "lag": status.lag,
        "lag_exact": status.lag_exact,
        "lag_seconds": status.lag_seconds,
        "active": status.active,
        "paused": status.paused,
        "pid": None if status.owner is None else status.owner.pid,
        "held_by": [_writer(writer) for writer in status.held_by],
        "history": None
        if (found := status.difference) is None
        else {"kind": str(found.kind), "missing": list(found.missing), "reason": found.reason},
        "last_error": status.last_error,
        "updated_at": _time(status.updated_at),
    }


def _consumer(status: ConsumerStatus) -> dict[str, Any]:
    return {
        "name": status.name,
        "position": status.position,
        "at": status.at,
        "beyond_head": status.beyond,
        "lag": status.lag,
        "lag_exact": status.lag == 0,
        "lag_seconds": status.lag_seconds,
        "state": status.state,
        "owner": status.owner,
        "last_error": status.last_error,
        "updated_at": _time(status.updated_at),
    }


def _consumer_lines(others: OtherConsumers) -> list[str]:
    lines = [f"consumers      {len(others.consumers) or 'none'}"]
    for status in others.consumers:
        lines.append(f"               {status.name}: {status.text}")
        if status.last_error:
            lines.append(f"                 {status.last_error}")
    return lines


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else iso_utc(moment)


def _as_text(
    health: Health,
    safe: int | None,
    projections: list[ProjectionStatus] | None,
    others: OtherConsumers,
    address: str,
) -> list[str]:
    size = health.table_bytes + health.index_bytes
    events = health.events
    each = f", ~{size_of(size / events.count)} an event" if events.known and events.count >= _MANY else ""
    # It is not known which of the missing numbers an open writer may fill.
    at_most = "at most " if health.writers else ""
    role = "standby" if health.recovering else "primary"
    numbers = [
        f"head           {health.head}{'' if health.head_exact else '  or above: this user may not read the sequence'}",
        f"last visible   {health.last}  {iso(health.last_created_at)}",
    ]
    lines = [
        f"server         PostgreSQL {health.server_version}, {role}, {address}",
        f"connections    {health.connections} of {health.max_connections}",
        *(numbers if health.numbered else ()),
        f"safe position  unknown: {health.order_unknown}"
        if safe is None
        else f"safe position  {safe}  {at_most}{max(health.head - safe, 0)} numbers behind the head",
        f"events         {events.text}",
        f"sizes          table {size_of(health.table_bytes)}, indexes {size_of(health.index_bytes)}{each}",
        f"notification   {health.doorbell_text}, {health.notify_queue:.1%} of the queue used",
        f"writers        {len(health.writers) or 'none'} in flight",
    ]
    for writer in health.writers:
        about = [writer.application, writer.state, f"open {ago(writer.since, health.at)}" if writer.since else None]
        lines.append(f"               {', '.join([writer.who, *(part for part in about if part)])}")
    if health.kind is not None:
        return [*lines, *_consumer_lines(others)]
    if projections is None:
        return [*lines, "projections    this user may not read them"]
    lines.append(f"projections    {len(projections) or 'none'}")
    for status in projections:
        doing = "paused" if status.paused else f"pid {status.owner.pid}" if status.owner else "not running"
        behind = f"{'' if status.lag_exact else '~'}{status.lag} behind"
        if status.beyond:
            behind = f"{status.beyond} beyond the head"
        elif status.age_text:
            behind += f" ({status.age_text})"
        lines.append(f"               {status.name}: at {status.position}, {behind}, {doing}")
        if status.difference is not None:
            lines.append(f"                 {status.difference}")
        elif status.last_error:
            lines.append(f"                 stopped at the next event: {status.last_error}")
        lines += [f"                 may be held back by {writer.who}" for writer in status.held_by]
    return lines

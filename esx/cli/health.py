"""esx health."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from esx.cli.common import Lines, database_option, json_option, with_store
from esx.cli.partial import incomplete, partial_option
from esx.text import ago, iso_utc, lapse
from esx.times import iso

if TYPE_CHECKING:
    from datetime import datetime

    from esx.store import EventStore, ProjectionStatus
    from esx.store.barrier import Writer
    from esx.store.health import Health
    from esx.store.history import Difference

_MANY = 100
"""With fewer events, empty pages would count for more than what is in them."""


@click.command(name="health")
@json_option
@partial_option
@database_option
def command(dsn: str | None, as_json: bool) -> None:
    """Print the state of the store in figures, in the same time at any size.

    Head, safe position, writers in flight, projections and their lag, notification, and sizes. What is wrong, and its
    remedy, is what `esx doctor` tells. With --json it is one object. estimated_events is an estimate unless
    events_exact, and null where it may be off by more than a factor of two: then events_at_least is all that is known.
    head is the highest visible number unless head_exact, safe and lag are null where nothing can be called safe
    (order_unknown says why), and projections is null where this user may not read them. A projection's history is null
    while the store holds what it has read; else it says how the two differ. Exits with 4 where this user may not read
    something.
    """

    async def work(store: EventStore) -> None:
        from esx.store import NotAllowed, SchemaMissing

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
        if not health.head_exact:
            incomplete("the head may be above: this user may not read the sequence, which takes GRANT SELECT on it")
        if any(writer.pid is not None and writer.since is None for writer in health.writers):
            incomplete(
                "since when others have been writing is not shown to this user: GRANT pg_read_all_stats shows it"
            )
        lines = Lines()
        if as_json:
            lines.json(json.dumps(_as_json(health, safe, projections, store.address), ensure_ascii=False))
        else:
            for line in _as_text(health, safe, projections, store.address):
                lines.text(line)

    with_store(dsn, work, read_only=True)


def _as_json(
    health: Health, safe: int | None, projections: list[ProjectionStatus] | None, address: str
) -> dict[str, Any]:
    return {
        "at": iso_utc(health.at),
        "address": address,
        "server_version": health.server_version,
        "database": health.database,
        "user": health.user,
        "standby": health.recovering,
        "head": health.head,
        "head_exact": health.head_exact,
        "first": health.first,
        "last": health.last,
        "last_created_at": _time(health.last_created_at),
        "safe": safe,
        "lag": None if safe is None else max(health.head - safe, 0),
        "order_unknown": health.order_unknown,
        "writers": [_writer(writer) for writer in health.writers],
        "projections": None if projections is None else [_projection(projection) for projection in projections],
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
        "history": None if status.difference is None else _difference(status.difference),
        "last_error": status.last_error,
        "updated_at": _time(status.updated_at),
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {"kind": str(difference.kind), "missing": list(difference.missing), "reason": difference.reason}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else iso_utc(moment)


def _as_text(health: Health, safe: int | None, projections: list[ProjectionStatus] | None, address: str) -> list[str]:
    size = health.table_bytes + health.index_bytes
    events = health.events
    each = f", ~{_size(size / events.count)} an event" if events.known and events.count >= _MANY else ""
    # Which of the missing numbers an open writer may fill is not known.
    at_most = "at most " if health.writers else ""
    role = "standby" if health.recovering else "primary"
    lines = [
        f"server         PostgreSQL {health.server_version}, {role}, {address}",
        f"connections    {health.connections} of {health.max_connections}",
        f"head           {health.head}{'' if health.head_exact else '  or above: this user may not read the sequence'}",
        f"last visible   {health.last}  {iso(health.last_created_at)}",
        f"safe position  unknown: {health.order_unknown}"
        if safe is None
        else f"safe position  {safe}  {at_most}{max(health.head - safe, 0)} numbers behind the head",
        f"events         {events.text}",
        f"sizes          table {_size(health.table_bytes)}, indexes {_size(health.index_bytes)}{each}",
        f"notification   {'trigger in place' if health.doorbell else 'no trigger: esx init adds it'}, "
        f"{health.notify_queue:.1%} of the queue used",
        f"writers        {len(health.writers) or 'none'} in flight",
    ]
    for writer in health.writers:
        about = [writer.application, writer.state, f"open {ago(writer.since, health.at)}" if writer.since else None]
        lines.append(f"               {', '.join([writer.who, *(part for part in about if part)])}")
    if projections is None:
        return [*lines, "projections    this user may not read them"]
    lines.append(f"projections    {len(projections) or 'none'}")
    for status in projections:
        doing = "paused" if status.paused else f"pid {status.owner.pid}" if status.owner else "not running"
        behind = f"{'' if status.lag_exact else '~'}{status.lag} behind"
        if status.beyond:
            behind = f"{status.beyond} beyond the head"
        elif status.lag:
            behind += f" ({lapse(status.lag_seconds)})"
        lines.append(f"               {status.name}: at {status.position}, {behind}, {doing}")
        if status.difference is not None:
            lines.append(f"                 {status.difference}")
        elif status.last_error:
            lines.append(f"                 stopped at the next event: {status.last_error}")
        lines += [f"                 may be held back by {writer.who}" for writer in status.held_by]
    return lines


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

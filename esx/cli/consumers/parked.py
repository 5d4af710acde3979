"""esx consumers parked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.opening import with_store
from esx.cli.options import database_option, json_option, partial_option
from esx.cli.output import OutputLines, OutputTable, incomplete, narrate
from esx.text import iso_utc, visible
from esx.times import iso

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.store.consume.put_aside import PutAside

_MOST = 10_000


@click.command(name="parked")
@click.argument("name")
@json_option
@partial_option
@database_option
def command(dsn: str | None, name: str, as_json: bool) -> None:
    """List the events that the consumer NAME has put aside, in the global order, at most 10,000.

    They are parked, to be tried again (retry), or skipped. Those parked behind another of their stream were not tried.
    """

    async def work(store: EventStore) -> list[PutAside]:
        return await store.put_aside(name, limit=_MOST + 1)

    found = with_store(dsn, work, read_only=True)
    lines = OutputLines()
    table = OutputTable(lines, ("EVENT", "STATE", "STREAM", "TYPE", "TRIED", "AT", "WHY"), {0, 4})
    for each in found[:_MOST]:
        if as_json:
            lines.value({**each._asdict(), "parked_at": iso_utc(each.parked_at)})
        else:
            stream, kind = visible(each.stream_id, limit=60), visible(each.event_type, limit=40)
            why = visible(each.error, limit=300)
            table.add(
                (f"{each.global_seq:,}", each.state, stream, kind, f"{each.attempts:,}", iso(each.parked_at), why)
            )
    table.flush()
    if not found:
        narrate("nothing is parked or skipped")
    if len(found) > _MOST:
        incomplete(f"there are more than {_MOST:,}: skip or retry the first ones, or read table parked_events")

"""esx consumers reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.consumers.asking import agreed, done, yes_option
from esx.cli.opening import with_store
from esx.cli.options import as_start, database_option

if TYPE_CHECKING:
    from datetime import datetime

    from esx.eventstore import EventStore


@click.command(name="reset")
@click.argument("name")
@click.option(
    "--to",
    "start",
    callback=as_start,
    metavar="start|end|N|TIME",
    default="start",
    show_default=True,
    help="Before the first event, behind the last, after global_seq N, or before what came from then on.",
)
@click.option("--truncate", "tables", multiple=True, metavar="TABLE", help="Empty this table in the same transaction.")
@yes_option
@database_option
def command(dsn: str | None, name: str, start: int | datetime | None, tables: tuple[str, ...], yes: bool) -> None:
    """Move the position of the consumer NAME, in all processes; those that run it go on from there.

    By default to the start: then it handles all events again. A projection's read model stays as it is, unless its
    tables are emptied by --truncate, once for each table.
    """

    async def work(store: EventStore) -> None:
        from esx.store.operate.effects import reset_effects

        report = await store.consumer(name)
        to = await _position(store, start)
        agreed(reset_effects(report, to, tables), yes=yes)
        await store.reset_consumer(name, to=to, truncate=tables)
        done(f"goes on after {to}")

    with_store(dsn, work)


async def _position(store: EventStore, start: int | datetime | None) -> int:
    if isinstance(start, int):
        return max(start, 0)
    feed = await (store.feed_from_end() if start is None else store.feed_from_time(start))
    return max(feed.position, 0)

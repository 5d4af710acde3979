"""esx consumers retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.consumers.asking import agreed, done, yes_option
from esx.cli.opening import with_store
from esx.cli.options import database_option

if TYPE_CHECKING:
    from esx.eventstore import EventStore


@click.command(name="retry")
@click.argument("name")
@click.option("--event", type=click.IntRange(0), metavar="N", help="Only the stream of this parked event.")
@yes_option
@database_option
def command(dsn: str | None, name: str, event: int | None, yes: bool) -> None:
    """Let the consumer NAME try its parked events again, in order for each stream.

    The program that runs it does so. At an event that fails again its stream is parked again.
    """

    async def work(store: EventStore) -> None:
        from esx.store.operate.effects import retry_effects
        from esx.text import counted

        report = await store.consumer(name)
        waiting = await store.parked_streams(name, event)
        agreed(retry_effects(report, sum(waiting.values())), yes=yes)
        marked = await store.retry_events(name, event)
        done(f"{counted(marked, 'event')} to be tried again")

    with_store(dsn, work)

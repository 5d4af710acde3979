"""esx consumers pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.consumers.asking import agreed, done, yes_option
from esx.cli.opening import with_store
from esx.cli.options import database_option

if TYPE_CHECKING:
    from esx.eventstore import EventStore


@click.command(name="pause")
@click.argument("name")
@yes_option
@database_option
def command(dsn: str | None, name: str, yes: bool) -> None:
    """Let the consumer NAME stop after the events that it handles now, in all processes.

    The program that runs it stays, and goes on within a second once it is resumed.
    """

    async def work(store: EventStore) -> None:
        from esx.store.operate.effects import pause_effects

        agreed(pause_effects(await store.consumer(name)), yes=yes)
        await store.pause_consumer(name)
        done(f"paused at {(await store.consumer(name)).position}")

    with_store(dsn, work)

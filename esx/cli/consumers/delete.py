"""esx consumers delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.consumers.asking import agreed, done, yes_option
from esx.cli.opening import with_store
from esx.cli.options import database_option

if TYPE_CHECKING:
    from esx.eventstore import EventStore


@click.command(name="delete")
@click.argument("name")
@yes_option
@database_option
def command(dsn: str | None, name: str, yes: bool) -> None:
    """Forget the consumer NAME: its position, and what it has parked.

    The read model of a projection stays, and what the target of a relay has got. A program that runs it ends.
    """

    async def work(store: EventStore) -> None:
        from esx.store.operate.effects import delete_effects

        agreed(delete_effects(await store.consumer(name)), yes=yes)
        await store.delete_consumer(name)
        done("deleted")

    with_store(dsn, work)

"""esx consumers skip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.consumers.asking import agreed, done, yes_option
from esx.cli.opening import with_store
from esx.cli.options import database_option

if TYPE_CHECKING:
    from esx.eventstore import EventStore


@click.command(name="skip")
@click.argument("name")
@click.option(
    "--event", type=click.IntRange(0), metavar="N", help="A parked event, instead of the one that stopped it."
)
@yes_option
@database_option
def command(dsn: str | None, name: str, event: int | None, yes: bool) -> None:
    """Let the consumer NAME go on without the event that stopped it, or without the parked event N.

    The event stays on record: `esx consumers parked NAME` lists it as skipped.
    """

    async def work(store: EventStore) -> None:
        from esx.store.operate.effects import skip_effects

        report = await store.consumer(name)
        found = await store.skippable(name, event)
        agreed(skip_effects(report, found.global_seq, found.about, found.waiting), yes=yes)
        skipped = await store.skip_event(name, found.global_seq)
        done(f"skipped {skipped.global_seq}")

    with_store(dsn, work)

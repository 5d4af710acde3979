"""esx consumers resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.consumers.asking import agreed, done, yes_option
from esx.cli.opening import with_store
from esx.cli.options import database_option

if TYPE_CHECKING:
    from esx.eventstore import EventStore


@click.command(name="resume")
@click.argument("name")
@yes_option
@database_option
def command(dsn: str | None, name: str, yes: bool) -> None:
    """Let the paused consumer NAME go on."""

    async def work(store: EventStore) -> None:
        from esx.store.operate.effects import resume_effects

        report = await store.consumer(name)
        agreed(resume_effects(report), yes=yes)
        await store.resume_consumer(name)
        done(f"goes on after {report.position}")

    with_store(dsn, work)

"""esx init."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.common import Lines, database_option, with_store

if TYPE_CHECKING:
    from esx.store import EventStore


@click.command(name="init")
@database_option
def command(dsn: str | None) -> None:
    """Create the events table, its indexes and its trigger (apply schema.sql).

    Says what it changed. Safe to repeat: what is there stays.
    """

    async def work(store: EventStore) -> list[str]:
        return await store.init()

    changes = with_store(dsn, work)
    lines = Lines()
    for change in changes or ["nothing to change: the schema is up to date"]:
        lines.text(change)

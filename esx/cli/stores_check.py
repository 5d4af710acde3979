"""esx stores check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.opening import with_store
from esx.cli.options import database_option, json_option, named_store, partial_option
from esx.cli.output import OutputLines, incomplete

if TYPE_CHECKING:
    from esx.doctor.checked import Checked
    from esx.eventstore import EventStore


@click.command(name="check")
@click.argument("name", required=False)
@json_option
@partial_option
@database_option
@click.pass_context
def command(ctx: click.Context, name: str | None, dsn: str | None, as_json: bool) -> None:
    """Check the store NAME: a table, a kind, or a layout of the config file; without it, the store that esx opens.

    It says what is there, what is missing, which reads no index serves, and what the store does not promise. It asks
    for PostgreSQL's plans of esx's own statements, and reads no event. Exits with 4 if something is slow or not
    promised, with 1 if the store cannot be read.
    """
    if name is not None:
        if named_store() not in (None, name):
            raise click.UsageError("name the store once: as NAME or by --store")
        ctx.meta["esx.store"] = name

    async def work(store: EventStore) -> list[Checked]:
        return await store.check_store()

    checked = with_store(dsn, work, read_only=True)
    lines = OutputLines()
    width = max(len(each.state) for each in checked)
    about = max(len(each.about) for each in checked)
    for each in checked:
        if as_json:
            lines.json(each.to_json())
        else:
            lines.text(f"{each.state:<{width}}  {each.about:<{about}}  {each.text}")
    missing = [each.text for each in checked if each.state == "missing"]
    if missing:
        raise click.ClickException(f"it cannot be read: {missing[-1]}")
    for state in ("slow", "not promised"):
        found = [each.about for each in checked if each.state == state]
        if found:
            incomplete(f"{state}: {', '.join(found)}")

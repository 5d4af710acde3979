"""esx stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.lazy import LazyGroup
from esx.cli.opening import with_store
from esx.cli.options import database_option, json_option
from esx.cli.output import OutputLines, OutputTable, narrate
from esx.text import visible

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.layouts.foreign.recognition import FoundStore, Lookalike


class _Group(LazyGroup):
    package = "esx.cli"
    listed = {"check": "Say what a store lacks, where it is slow, and what it does not promise."}  # noqa: RUF012
    modules = {"check": "stores_check"}  # noqa: RUF012 - both are declared in the base class


@click.group(name="stores", cls=_Group, invoke_without_command=True)
@json_option
@database_option
@click.pass_context
def command(ctx: click.Context, dsn: str | None, as_json: bool) -> None:
    """List the event stores of the database: esx's own, and those of other tools that it recognises.

    They are recognised by the columns of their tables, in all schemas. Numbers of events are PostgreSQL's estimates, by
    its last ANALYZE and the size of the tables now; `esx health` counts.
    Choose one with --store NAME. Stores of other tools are only read.
    """
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"--json belongs after the command: esx stores {ctx.invoked_subcommand} --json")
        return

    async def work(store: EventStore) -> tuple[list[FoundStore], list[Lookalike], list[str]]:
        return *await store.stores(), await store.absent_layouts()

    found, near, absent = with_store(dsn, work, read_only=True)
    lines = OutputLines()
    table = OutputTable(lines, ("STORE", "KIND", "EVENTS", ""), {2})
    for each in found:
        events = each.rows
        if as_json:
            described = {"store": each.table.quoted, "kind": each.kind.name, "title": each.kind.title}
            lines.value({**described, "events": events, "events_exact": False, "problem": each.problem})
        else:
            estimate = "?" if events is None else f"~{events:,}"
            table.add((visible(each.table.quoted, limit=200), each.kind.title, estimate, each.problem or ""))
    table.flush()
    if not found:
        narrate("no event store in this database")
    for line in absent:
        narrate(line)
    for other in near:
        name = visible(other.table.quoted, limit=200)
        narrate(f"{name} looks like a store of {other.kind.title}, but lacks {', '.join(other.missing)}")

"""esx project audit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from esx.cli.opening import with_store
from esx.cli.options import database_option, json_option, partial_option
from esx.cli.output import OutputLines, ProgressLine, incomplete, narrate
from esx.cli.project.handlers import handler_of
from esx.text import counted, visible

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.store.operate.audit import AuditReport, RowDifference


@click.command(name="audit")
@click.argument("handler", metavar="MODULE:FUNCTION")
@click.option("--name", required=True, help="The projection's name.")
@click.option(
    "--tables",
    required=True,
    metavar="T,...",
    help="All tables that the function writes to, as SQL writes their names.",
)
@click.option(
    "--ignore", default="", metavar="C,...", help="Columns that are not compared: times of handling, identities."
)
@click.option("--batch", is_flag=True, help="The function takes a list of events, not one.")
@json_option
@partial_option
@database_option
def command(dsn: str | None, handler: str, name: str, tables: str, ignore: str, batch: bool, as_json: bool) -> None:
    """Make the read model of a projection again from its events, and compare it row by row. Nothing is changed.

    FUNCTION handles the events up to the projection's position in a scratch schema, in one transaction that is rolled
    back; it has to write the names of its tables without a schema. Prints "same", or the rows that differ with the
    events that touched them, and then exits with 1. With --json, one object for each row that differs: table, key,
    kept (the row of the read model), made (the row made again) and events; null stands for no row.
    """
    function = handler_of(handler, batch=batch)
    named, ignored = ([part.strip() for part in text.split(",") if part.strip()] for text in (tables, ignore))

    async def work(store: EventStore) -> AuditReport:
        narrate("until this ends, it holds back vacuum in the whole cluster")
        with ProgressLine() as line:

            def tell(position: int, end: int) -> None:
                line(f"at {position:,} of {end:,}")

            return await store.audit_projection(name, function, named, ignored=ignored, batches=batch, on_progress=tell)

    report = with_store(dsn, work)
    lines = OutputLines()
    for each in report.differences:
        if as_json:
            lines.json(_as_json(each))
        else:
            lines.text(*_lines(each))
    if not as_json and report.same:
        lines.text("same")
    rows = ", ".join(
        f"{counted(number, 'row')} of {visible(table, limit=100)}" for table, number in report.rows.items()
    )
    narrate(f"{counted(report.handled, 'event')} up to {report.position} made again, compared with {rows}")
    if report.left_out:
        narrate(f"left out: {counted(report.left_out, 'event')} that it has parked or skipped")
    if ignored:
        narrate(f"not compared: {', '.join(ignored)}")
    narrate(
        "not seen: what the handler does outside of these tables, and events changed in place before they were read"
    )
    if report.differing > len(report.differences):
        incomplete(f"only the first {len(report.differences):,} of {report.differing:,} rows that differ are listed")
    if not report.same:
        raise click.ClickException(f"{counted(report.differing, 'row')} differ from what the events make")


def _as_json(each: RowDifference) -> str:
    """Return a difference as JSON, with every digit that PostgreSQL holds."""
    parts = {
        "table": json.dumps(each.table, ensure_ascii=False),
        "key": each.key or "null",
        "kept": each.kept or "null",
        "made": each.made or "null",
        "events": json.dumps(each.events),
    }
    return "{" + ", ".join(f'"{name}": {value}' for name, value in parts.items()) + "}"


def _lines(each: RowDifference) -> list[str]:
    lines = [f"{each.table} {each.key or ''}".rstrip()]
    lines.append(f"  kept  {each.kept or 'no row'}")
    lines.append(f"  made  {each.made or 'no row'}")
    if each.events is not None:
        some = ", ".join(map(str, each.events[:20])) or "none"
        more = f" and {len(each.events) - 20} more" if len(each.events) > 20 else ""
        lines.append(f"  touched by events {some}{more}")
    return lines

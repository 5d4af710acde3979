"""esx consumers: lists projections and relays, and is a group of commands such as ``esx consumers pause NAME``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.lazy import LazyGroup
from esx.cli.opening import with_store
from esx.cli.options import database_option, json_option, partial_option
from esx.cli.output import OutputLines, OutputTable, incomplete, narrate
from esx.text import visible

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.store.consume.others import ConsumerStatus
    from esx.store.consume.report import ConsumerReport


class _Group(LazyGroup):
    package = "esx.cli.consumers"
    listed = {  # noqa: RUF012 - declared in the base class
        "pause": "Let a consumer stop after the events that it handles now.",
        "resume": "Let a paused consumer go on.",
        "reset": "Move the position of a consumer.",
        "skip": "Let a consumer go on without an event.",
        "delete": "Forget a consumer.",
        "retry": "Let a consumer try its parked events again.",
        "parked": "List the events that a consumer has parked or skipped.",
    }


@click.group(name="consumers", cls=_Group, invoke_without_command=True)
@json_option
@partial_option
@database_option
@click.pass_context
def command(ctx: click.Context, dsn: str | None, as_json: bool) -> None:
    """List the consumers of the store, projections and relays, and say what each does.

    A consumer is active, waiting (for a program that runs it, an open writer, or something that passes), paused,
    failed, or has parked events. Lag counts the visible events after its position; the age is that of the oldest of
    them. The rate is that of the last seconds. In the store of another tool, lists the consumers that the tool knows.
    Empty is what is not known.

    With --json, one object a line. lag is exact unless lag_exact is false. lag_seconds, the age, is null where it is
    not known. state is active, waiting, paused, failed or
    parked; waits_for says for what. last_error is about event error_seq. host, pid and since say who runs it, backend
    is its process in PostgreSQL. parked and skipped are null where this user may not read them.
    """
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"--json belongs after the command: esx consumers {ctx.invoked_subcommand} --json")
        return

    async def work(store: EventStore) -> tuple[list[ConsumerReport], list[ConsumerStatus]]:
        reports = await store.consumers()
        others = await store.other_consumers()
        for note in others.notes:
            incomplete(note)
        return reports, list(others.consumers)

    reports, others = with_store(dsn, work, read_only=True)
    lines = OutputLines()
    if as_json:
        for report in reports:
            lines.json(report.to_json())
        for other in others:
            lines.json(other.to_json())
        return
    table = OutputTable(
        lines, ("CONSUMER", "KIND", "STATE", "POSITION", "LAG", "AGE", "RATE", "RUN BY", ""), {3, 4, 5, 6}
    )
    for report in reports:
        table.add(_row(report))
    for other in others:
        lag = "-" if other.lag is None else f"~{other.lag:,}" if other.lag else "0"
        position = other.at or "-" if other.position is None else f"{other.position:,}"
        about = visible(other.last_error or "", limit=200)
        table.add(
            (
                visible(other.name, limit=60),
                "other",
                other.state or "",
                position,
                lag,
                other.age_text or ("-" if other.lag == 0 else ""),
                "",
                other.owner or "-",
                about,
            )
        )
    table.flush()
    if not reports and not others:
        narrate("no consumers: a projection or a relay is listed from its first run on")
    if any(report.parked is None for report in reports):
        incomplete(
            "which events are parked is not shown to this user: it takes SELECT on parked_events, and `esx init`"
        )


def _row(report: ConsumerReport) -> tuple[str, ...]:
    lag = f"{report.beyond:,} beyond" if report.beyond else f"{'' if report.lag_exact else '~'}{report.lag:,}"
    return (
        visible(report.name, limit=60),
        report.kind,
        str(report.state),
        f"{report.position:,}",
        lag,
        report.age_text or ("" if report.lag else "-"),
        f"{report.rate:,.0f}/s" if report.rate >= 10 else f"{report.rate:.1f}/s",
        visible(report.run_by, limit=60),
        visible(report.about, limit=300),
    )

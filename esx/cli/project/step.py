"""esx project step."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import click

from esx.cli.opening import with_store
from esx.cli.options import database_option, json_option
from esx.cli.output import OutputLines, narrate
from esx.cli.project.handlers import handler_of
from esx.store.operate.stepping import MOST_BACK

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.store.operate.stepping import RowBreak, Stepper, StepTaken

_KEYS = f"enter: next · c: on to the next breakpoint · b: back (at most {MOST_BACK}) · q: quit"


@click.command(name="step")
@click.argument("handler", metavar="MODULE:FUNCTION")
@click.option("--name", required=True, help="The projection's name.")
@click.option(
    "--tables",
    required=True,
    metavar="T,...",
    help="All tables that the function writes to, as SQL writes their names.",
)
@click.option("--batch", is_flag=True, help="The function takes a list of events, not one.")
@click.option("--break-type", metavar="GLOB", help="Stop at events of matching types.")
@click.option("--break-where", metavar="JSONPATH", help="Stop at events for which the path holds.")
@click.option("--break-row", metavar="TABLE:JSON", help='Stop where a row changes: balances:{"account": "a-1"}.')
@json_option
@database_option
def command(
    dsn: str | None,
    handler: str,
    name: str,
    tables: str,
    batch: bool,
    break_type: str | None,
    break_where: str | None,
    break_row: str | None,
    as_json: bool,
) -> None:
    """Step through a projection's events, and see which rows of the read model each changes, before and after.

    The read model is made from nothing in a scratch schema, in a transaction that is rolled back: nothing is changed.
    Keys are read from stdin, a line each: enter goes on by one event, c to the next breakpoint, b one back, q quits.

    With --json it reads nothing and prints all steps, or those at breakpoints if there are any, an object each:
    global_seq, stream_id, event_type, and changes with table, before and after; null stands for no row.
    """
    function = handler_of(handler, batch=batch)
    named = [part.strip() for part in tables.split(",") if part.strip()]
    lines = OutputLines()

    async def work(store: EventStore) -> None:
        from esx.store.operate.stepping import RowBreak

        row = None if break_row is None else RowBreak.parse(break_row)
        broken = any(each is not None for each in (break_type, break_where, row))
        narrate("until this ends, it holds back vacuum in the whole cluster")
        async with store.step_projection(name, function, named, batches=batch) as stepper:
            if as_json:
                while (taken := await _on(stepper, broken, break_type, break_where, row)) is not None:
                    lines.json(_as_json(taken))
            else:
                narrate(f"{stepper.end - stepper.position} numbers to go, up to {stepper.end}. {_KEYS}")
                await _talk(stepper, lines, broken, break_type, break_where, row)

    with_store(dsn, work)


async def _on(
    stepper: Stepper, broken: bool, event_type: str | None, where: str | None, row: RowBreak | None
) -> StepTaken | None:
    return await (stepper.run_to(event_type=event_type, where=where, row=row) if broken else stepper.step())


async def _talk(
    stepper: Stepper, lines: OutputLines, broken: bool, event_type: str | None, where: str | None, row: RowBreak | None
) -> None:
    while True:
        asked = await asyncio.to_thread(sys.stdin.readline)
        key = asked.strip().lower()
        if not asked or key in ("q", "quit"):
            return
        if key not in ("", "n", "b", "c"):
            narrate(_KEYS)
            continue
        if key == "b":
            undone = await stepper.back()
            narrate("there is no step to take back" if undone is None else f"took back event {undone.event.global_seq}")
            continue
        taken = await (_on(stepper, broken, event_type, where, row) if key == "c" else stepper.step())
        if taken is None:
            narrate(f"that is all, up to {stepper.end}: b goes back, q quits")
            continue
        lines.text(*_lines(taken))
        lines.flush()


def _lines(taken: StepTaken) -> list[str]:
    event = taken.event
    lines = [f"{event.global_seq}  {event.event_type}  {event.stream_id}@{event.stream_seq}  {event.data_json[:200]}"]
    for change in taken.changes:
        lines.append(f"  {change.table}")
        lines.append(f"    before  {change.before or 'no row'}")
        lines.append(f"    after   {change.after or 'no row'}")
    return lines if taken.changes else [*lines, "  changes nothing"]


def _as_json(taken: StepTaken) -> str:
    event = taken.event
    changes = []
    for change in taken.changes:
        rows = f'"before": {change.before or "null"}, "after": {change.after or "null"}'
        changes.append(f'{{"table": {json.dumps(change.table)}, {rows}}}')
    about = json.dumps(
        {"global_seq": event.global_seq, "stream_id": event.stream_id, "event_type": event.event_type},
        ensure_ascii=False,
    )
    return f'{about[:-1]}, "changes": [{", ".join(changes)}]}}'

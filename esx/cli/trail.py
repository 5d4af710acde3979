"""esx trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from esx.cli.events import tell_odd_value
from esx.cli.forms import CsvLines, output_options
from esx.cli.opening import config, with_store
from esx.cli.options import database_option, partial_option
from esx.cli.output import OutputLines, ProgressLine, incomplete, narrate
from esx.cli.pager import paged
from esx.payload import Undecoded
from esx.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from esx.cli.forms import Form
    from esx.eventstore import EventStore
    from esx.store.trail.trail import FieldNames, Trail

_PAGE = 200
_TYPE = 70


def _bound(ctx: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "all":
        return None
    if value.isascii() and value.isdigit() and int(value) < 2**63:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a number nor all", ctx, parameter)


@click.command(name="trail")
@click.argument("event")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=10_000,
    show_default=True,
    help="At most the first N events.",
)
@click.option(
    "--scan",
    callback=_bound,
    metavar="N|all",
    default="1000000",
    show_default=True,
    help="How many events to look at where no index helps.",
)
@click.option("--correlation-field", multiple=True, metavar="NAME", help="Its name in metadata; may be repeated.")
@click.option("--causation-field", multiple=True, metavar="NAME", help="Its name in metadata; may be repeated.")
@output_options
@partial_option
@database_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    dsn: str | None,
    event: str,
    limit: int,
    scan: int | None,
    correlation_field: tuple[str, ...],
    causation_field: tuple[str, ...],
    form: Form,
) -> None:
    """Print what shares a correlation id, as a tree of what caused what.

    EVENT is a global_seq, the id of an event, or a correlation id. The ids are looked for in metadata as
    correlation_id and causation_id, correlationId, $correlationId and the like, or as the config file says; in another
    tool's store where that tool keeps them. Ids in metadata that have to be decoded are not found.

    --json prints events in the global order, each with its depth in the tree, its parent's global_seq, and its link:
    root, caused, absent (its cause is not among them) or circle.

    Exits with 4 where --scan, or the default of --limit, leaves something out.
    """

    async def work(store: EventStore) -> None:
        from esx.errors import NotFound

        try:
            with ProgressLine() as progress:
                trail = await store.trail(
                    int(event) if event.isascii() and event.isdigit() and int(event) < 2**63 else event,
                    fields=_fields(correlation_field, causation_field),
                    limit=limit,
                    scan=scan,
                    on_progress=lambda looked, found: progress(f"looked at {looked:,} events, {found:,} belong to it"),
                )
        except NotFound as error:
            if error.certain:
                raise
            incomplete(f"{error} (--scan all looks at all of them)")
            return
        lines = OutputLines()
        for node in trail.nodes:
            tell_odd_value(node.event.global_seq, node.event.created_at, node.event.stream_id, node.event.event_type)
        if form.as_json:
            await _print_json(lines.json, store, trail)
        elif form.as_csv:
            await _print_json(CsvLines().json, store, trail)
        else:
            from esx.store.trail.trail import headline

            narrate(headline(trail))
            _print_tree(lines, trail, form)
        if trail.correlation is None and trail.anchor is not None:
            found = await store.event(trail.anchor)
            if found is not None and isinstance(found.metadata_json, Undecoded):
                incomplete(f"the metadata of event {trail.anchor} are no JSON, so ids in them are not found")
        if trail.more:
            chosen = ctx.get_parameter_source("limit") is not ParameterSource.DEFAULT
            (narrate if chosen else incomplete)(f"there are more than these {limit:,}: --limit shows them")
        if trail.scan is not None:
            _narrate_scan(trail)

    with paged(form.paged):
        with_store(dsn, work, read_only=True)


def _fields(correlation: tuple[str, ...], causation: tuple[str, ...]) -> FieldNames:
    from esx.store.trail.trail import FieldNames

    known = config().fields
    return FieldNames(correlation or known.correlation, causation or known.causation, known.identity)


def _print_tree(lines: OutputLines, trail: Trail, form: Form) -> None:
    from rich.cells import cell_len

    if form.compact:
        _print_compact(lines, trail, form)
        return
    from esx.model import place_text
    from esx.store.trail.trail import remark, since

    texts = [trail.rails(index) + visible(trail.nodes[index].event.event_type, limit=200) for index in trail.tree]
    width = min(max(map(cell_len, texts), default=0), _TYPE)
    for index, text in zip(trail.tree, texts, strict=True):
        node = trail.nodes[index]
        event = node.event
        mark = "*" if event.global_seq == trail.anchor else " "
        gap = " " * max(width - cell_len(text), 0)
        where = place_text(event.stream_id, event.stream_seq)
        about = f"  ({remark(node)})" if remark(node) else ""
        lines.text(f"{event.global_seq:>8} {mark} {since(trail, node):>12}  {text}{gap}  {where}{about}")


def _print_compact(lines: OutputLines, trail: Trail, form: Form) -> None:
    """Print the tree in lines that fit; who caused what, and when, comes before where it is."""
    from esx.cli.compact import Column, CompactCell, CompactTable
    from esx.cli.style import MUTED, STRONG, hue
    from esx.model import place_text
    from esx.store.trail.trail import remark, since

    columns = (Column(right=True), Column(), Column(right=True), Column(yields=True), Column())
    table = CompactTable(lines, form, columns)
    for index in trail.tree:
        node = trail.nodes[index]
        event = node.event
        about = f"  ({remark(node)})" if remark(node) else ""
        table.add(
            (
                CompactCell(str(event.global_seq), MUTED),
                CompactCell("*" if event.global_seq == trail.anchor else " ", STRONG),
                CompactCell(since(trail, node), MUTED),
                CompactCell(
                    trail.rails(index) + visible(event.event_type, limit=200), hue(event.stream_id, event.event_type)
                ),
                CompactCell(visible(place_text(event.stream_id, event.stream_seq), limit=200) + about),
            )
        )
    table.flush()


async def _print_json(write: Callable[[str], None], store: EventStore, trail: Trail) -> None:
    for start in range(0, len(trail.nodes), _PAGE):
        page = trail.nodes[start : start + _PAGE]
        events = await store.events([node.event.global_seq for node in page])
        for node in page:
            event = events.get(node.event.global_seq)
            if event is None:
                continue  # deleted since
            parent = "null" if node.parent is None else str(trail.nodes[node.parent].event.global_seq)
            place = f', "depth": {node.depth}, "parent": {parent}, "link": "{node.link}"}}'
            write(event.to_json()[:-1] + place)


def _narrate_scan(trail: Trail) -> None:
    scan = trail.scan
    assert scan is not None
    looked = f"no index finds them: looked at {counted(scan.looked, 'event')}"
    if scan.whole:
        narrate(looked)
    else:
        incomplete(f"{looked}, and there may be more beyond (--scan all looks at all of them)")
    for index in scan.indexes:
        narrate(f"this index would help: {index}")

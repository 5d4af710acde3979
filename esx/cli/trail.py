"""esx trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.common import Lines, ProgressLine, database_option, json_option, narrate, with_store
from esx.text import lapse, visible

if TYPE_CHECKING:
    from esx.store import EventStore
    from esx.store.trail import FieldNames, Trail, TrailNode

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
@json_option
@database_option
def command(
    dsn: str | None,
    event: str,
    limit: int,
    scan: int | None,
    correlation_field: tuple[str, ...],
    causation_field: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print what shares a correlation id, as a tree of what caused what.

    EVENT is a global_seq, the id of an event, or a correlation id. The ids are looked for in metadata as
    correlation_id and causation_id, correlationId, $correlationId and the like. --json prints events in the global
    order, each with its depth in the tree, its parent's global_seq, and its link: root, caused, absent (its cause is
    not among them) or circle.
    """

    async def work(store: EventStore) -> None:
        with ProgressLine() as progress:
            trail = await store.trail(
                int(event) if event.isascii() and event.isdigit() and int(event) < 2**63 else event,
                fields=_fields(correlation_field, causation_field),
                limit=limit,
                scan=scan,
                on_progress=lambda looked, found: progress(f"looked at {looked:,} events, {found:,} belong to it"),
            )
        lines = Lines()
        if as_json:
            await _print_json(lines, store, trail)
        else:
            narrate(headline(trail))
            _print_tree(lines, trail)
        if trail.more:
            narrate(f"there are more: the first {len(trail.nodes):,} are shown, --limit shows more")
        if trail.scan is not None:
            _narrate_scan(trail)

    with_store(dsn, work, read_only=True)


def _fields(correlation: tuple[str, ...], causation: tuple[str, ...]) -> FieldNames:
    from esx.store.trail import COMMON_FIELDS, FieldNames

    return FieldNames(correlation or COMMON_FIELDS.correlation, causation or COMMON_FIELDS.causation)


def headline(trail: Trail) -> str:
    """Return a line that says what the trail is: its correlation id, how much it holds, and how long it took."""
    events = [node.event for node in trail.nodes]
    streams = len({event.stream_id for event in events})
    times = [event.created_at for event in events if event.created_at is not None]
    span = f" in {lapse((max(times) - min(times)).total_seconds())}" if len(times) > 1 else ""
    what = (
        f"no correlation id in event {trail.anchor}: its causes and effects"
        if trail.correlation is None
        else f"{visible(trail.field or '', limit=80)} {visible(trail.correlation, limit=200)}"
    )
    counts = f"{_counted(len(events), 'event')} of {_counted(streams, 'stream')}"
    return f"{what}: {counts}{span}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _print_tree(lines: Lines, trail: Trail) -> None:
    from rich.cells import cell_len

    begin = next((node.event.created_at for node in trail.nodes if node.event.created_at is not None), None)
    rows = []
    for index in trail.tree:
        node = trail.nodes[index]
        event = node.event
        at = "-" if begin is None or event.created_at is None else lapse((event.created_at - begin).total_seconds())
        what = trail.rails(index) + visible(event.event_type, limit=200)
        rows.append((node, at if at.startswith("-") else f"+{at}", what))
    width = min(max((cell_len(what) for _, _, what in rows), default=0), _TYPE)
    for node, at, what in rows:
        event = node.event
        mark = "*" if event.global_seq == trail.anchor else " "
        where = f"{event.stream_id}@{event.stream_seq}"
        lines.text(
            f"{event.global_seq:>8} {mark} {at:>12}  {what}{' ' * (width - cell_len(what))}  {where}{remark(node)}"
        )


def remark(node: TrailNode) -> str:
    """Return what to say of an event whose cause is not shown above it; nothing for the others."""
    from esx.store.trail import Link

    if node.link is Link.ABSENT:
        return f"  (caused by {visible(node.event.cause or '', limit=100)}, which is not among these)"
    if node.link is Link.CIRCLE:
        return "  (its causes lead back to itself)"
    return ""


async def _print_json(lines: Lines, store: EventStore, trail: Trail) -> None:
    for start in range(0, len(trail.nodes), _PAGE):
        page = trail.nodes[start : start + _PAGE]
        events = await store.events([node.event.global_seq for node in page])
        for node in page:
            event = events.get(node.event.global_seq)
            if event is None:
                continue  # deleted since
            parent = "null" if node.parent is None else str(trail.nodes[node.parent].event.global_seq)
            place = f', "depth": {node.depth}, "parent": {parent}, "link": "{node.link}"}}'
            lines.json(event.to_json()[:-1] + place)


def _narrate_scan(trail: Trail) -> None:
    scan = trail.scan
    assert scan is not None
    looked = f"no index finds them: looked at {scan.looked:,} events"
    narrate(looked if scan.whole else f"{looked}, and there may be more beyond (--scan all looks at all of them)")
    for index in scan.indexes:
        narrate(f"this index would help: {index}")

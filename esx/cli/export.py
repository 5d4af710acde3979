"""esx export."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esx.cli.common import Lines, database_option, filter_options, narrate, progress, with_store
from esx.cli.meter import Meter
from esx.cli.odd import tell_odd_lines
from esx.cli.partial import incomplete, partial_option
from esx.cli.printing import ended_before
from esx.cli.writing import force_option, target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esx.store import EventStore


@click.command(name="export")
@click.option(
    "--from",
    "start",
    type=click.IntRange(0, 2**63 - 1),
    metavar="N",
    default=0,
    help="Only events after global_seq N.",
)
@filter_options
@click.option(
    "-o", "--output", metavar="FILE", help="Write to FILE, which appears once it is complete (default: stdout)."
)
@force_option
@partial_option
@database_option
def command(
    dsn: str | None,
    start: int,
    stream: str | None,
    event_type: str | None,
    where: str | None,
    output: str | None,
    force: bool,
) -> None:
    """Write all events, or a slice, as NDJSON in global order: one event a line, every digit kept.

    It ends at the safe position, below which no event can appear any more. If a writer that is still open may hold
    that back, it says so and exits with 4. To back up what is new, go on --from the last global_seq written. esx
    import reads it.
    """

    async def work(store: EventStore) -> None:
        from esx.store.barrier import Filter

        export = await store.export(after=start, where=Filter(stream, event_type, where))
        async for piece in export:
            tell_odd_lines(piece)
            write(piece)
            meter.update(export.events, (export.position - start) / max(export.until - start, 1))
        if export.gap is not None:
            incomplete(ended_before(export.until, export.gap))
        if output is not None and progress() is not None:
            rate = meter.rate(export.events)
            done.append(f"exported {export.events:,} events up to global_seq {export.until}, {rate:,.0f}/s")

    done: list[str] = []
    with _target(output, force=force) as write, Meter(quiet=output is None and sys.stdout.isatty()) as meter:
        with_store(dsn, work, read_only=True)
    for line in done:
        narrate(line)


@contextlib.contextmanager
def _target(output: str | None, *, force: bool) -> Iterator[Callable[[bytes], object]]:
    """Give a function that writes; a regular file takes its name only when all is written."""
    if output is None or output == "-":
        yield Lines().ndjson
        return
    with target(Path(output), force=force) as file:
        yield file.write

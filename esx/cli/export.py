"""esx export."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esx.cli.common import Lines, database_option, filter_options, narrate, progress, with_store
from esx.cli.meter import Meter
from esx.cli.odd import tell_odd_lines
from esx.cli.partial import incomplete, partial_option
from esx.cli.printing import ended_before
from esx.files import new_file

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
@click.option("--force", is_flag=True, help="Replace FILE if it is there already.")
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
    path = Path(os.path.realpath(output))
    with contextlib.ExitStack() as stack:
        try:
            replaced = not path.exists() or stat.S_ISREG(path.stat().st_mode)
            if path.exists() and replaced and not force:
                raise click.UsageError(f"{output} is there already: name another file, or replace it with --force")
            if path.exists() and not os.access(path, os.W_OK):
                raise PermissionError(13, "it may not be written")
            file = stack.enter_context(new_file(path) if replaced else path.open("wb"))
        except OSError as error:
            raise click.FileError(output, error.strerror or str(error)) from None
        yield file.write

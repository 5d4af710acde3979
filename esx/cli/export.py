"""esx export."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esx.cli.events import ended_before, tell_odd_lines
from esx.cli.filtering import filter_argument, filter_of, first_after
from esx.cli.opening import with_store
from esx.cli.options import complete_file, database_option, filter_options, partial_option
from esx.cli.output import Meter, OutputLines, incomplete, narrate, progress
from esx.cli.payloads import PayloadDecoding, decode_options
from esx.cli.writing import force_option, target
from esx.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esx.eventstore import EventStore


@click.command(name="export")
@click.option(
    "--from",
    "start",
    type=click.IntRange(0, 2**63 - 1),
    metavar="N",
    help="Only events after global_seq N.",
)
@filter_argument
@filter_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    shell_complete=complete_file,
    help="Write to FILE, which appears once it is complete (default: stdout).",
)
@force_option
@click.option(
    "--snapshot",
    is_flag=True,
    help="Where a store has no order to follow: what is there now, by global_seq or else stream by stream.",
)
@decode_options
@partial_option
@database_option
def command(
    dsn: str | None,
    start: int | None,
    words: tuple[str, ...],
    stream: str | None,
    event_type: str | None,
    where: str | None,
    output: str | None,
    force: bool,
    snapshot: bool,
    decode: bool,
    decoder: str | None,
) -> None:
    """Write all events, or a slice, as NDJSON in global order: one event a line, every digit kept.

    FILTER chooses the slice: esx export 'orders-* type:Order* since:-1d', see docs/filters.md.

    It ends at the safe position, below which no event can appear any more. If an open transaction may hold that back,
    it says so and exits with 4. To back up only new events, start --from the last global_seq written. esx import
    reads the result.

    Payloads of other stores that are no JSON are null, with a data_note; stderr says how many, and it exits with 4.
    With --decode or --decoder they are what they are decoded to, and stderr says how.
    """
    chosen = filter_of(words, stream=stream, event_type=event_type, where=where)
    decoding = PayloadDecoding(decoder) if decode or decoder is not None else None

    async def work(store: EventStore) -> None:
        from esx.errors import OrderUnknown

        after = -1 if start is None else start
        if chosen.since is not None and not snapshot:
            after = max(after, await first_after(store, chosen.since))
        try:
            export = await store.export(
                after=after,
                where=chosen,
                snapshot=snapshot,
                decode=None if decoding is None else decoding.event,
            )
        except OrderUnknown as error:
            if decoding is not None:
                raise
            if snapshot:
                raise click.UsageError("--from goes by global_seq, which this store does not have") from error
            raise click.ClickException(f"{error}; --snapshot exports what is there now") from error
        async for piece in export:
            tell_odd_lines(piece)
            write(piece)
            meter.update(export.events, (export.position - after) / max(export.until - after, 1))
        if export.snapshot is not None:
            order = "stream by stream" if export.until < 0 else "by global_seq"
            narrate(f"a snapshot, {order}: events that are committed later can have their places between these")
        if decoding is not None:
            decoding.tell()
        if export.undecoded:
            hint = "; --decode decodes what it can" if decoding is None else ""
            payloads = counted(export.undecoded, "payload is", "payloads are")
            incomplete(
                f"{payloads} no JSON: null is written instead, and what it is in data_note or metadata_note{hint}"
            )
        if export.fields is not None and export.events:
            named = [f"--correlation-field {shlex.quote(name)}" for name in export.fields.correlation]
            named += [f"--causation-field {shlex.quote(name)}" for name in export.fields.causation]
            narrate(f"once imported, trails need the names of this tool: esx trail NUMBER {' '.join(named)}")
        if export.gap is not None:
            incomplete(ended_before(export.until, export.gap))
        if output is not None and progress() is not None:
            rate = meter.rate(export.events)
            end = "" if export.until < 0 else f" up to global_seq {export.until}"
            done.append(f"exported {counted(export.events, 'event')}{end}, {rate:,.0f}/s")

    done: list[str] = []
    with _target(output, force=force) as write, Meter(quiet=output is None and sys.stdout.isatty()) as meter:
        with_store(dsn, work, read_only=True)
    for line in done:
        narrate(line)


@contextlib.contextmanager
def _target(output: str | None, *, force: bool) -> Iterator[Callable[[bytes], object]]:
    """Return a function that writes; a regular file takes its name only when all is written."""
    if output is None or output == "-":
        yield OutputLines().ndjson
        return
    with target(Path(output), force=force) as file:
        yield file.write

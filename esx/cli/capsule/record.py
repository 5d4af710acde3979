"""esx capsule record."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esx.cli.opening import config, database, store_on
from esx.cli.options import (
    as_moment,
    as_seconds,
    as_start,
    complete_file,
    completing,
    database_option,
    json_option,
    partial_option,
)
from esx.cli.output import Meter, OutputLines, incomplete, narrate
from esx.cli.running import ended_by, run
from esx.cli.writing import check, force_option, target
from esx.text import size_of, visible

if TYPE_CHECKING:
    from esx.capsule.format import LoadSecond
    from esx.capsule.recorder import RecordedCapsule
    from esx.database_choice import Database

_BY_DEFAULT = timedelta(hours=1)


def _start(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | datetime | str | None:
    return "" if value is None else as_start(ctx, parameter, value)


def _seconds(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    return None if value is None else as_seconds(ctx, parameter, value)


@click.command(name="record")
@click.option(
    "-o", "--output", "path", metavar="FILE", required=True, shell_complete=complete_file, help="Write to FILE."
)
@click.option(
    "--from",
    "start",
    callback=_start,
    metavar="start|end|N|TIME",
    help="From the first event, from now on, after global_seq N, or from '2026-08-07 14:00' or -2h on "
    "[default: -1h, with --follow from now on].",
)
@click.option("--to", "until", callback=as_moment, metavar="TIME", help="Only events created before then.")
@click.option(
    "--follow",
    callback=_seconds,
    metavar="TIME",
    help="Go on for so long, e.g. 10m, and note the feed, consumers and figures as they change; Ctrl-C ends it early.",
)
@click.option(
    "--stream", metavar="GLOB", shell_complete=completing("stream_glob"), help="Only events of matching streams."
)
@click.option(
    "--mask",
    "masks",
    multiple=True,
    metavar="JSONPATH",
    help="Pseudonyms in place of the values there, such as '$.email' or '$.card.*'; may be repeated.",
)
@click.option("--mask-ids", is_flag=True, help="Pseudonyms for the ids of streams and correlations, too.")
@force_option
@json_option
@partial_option
@database_option
def command(
    dsn: str | None,
    path: str,
    start: int | datetime | str | None,
    until: datetime | None,
    follow: float | None,
    stream: str | None,
    masks: tuple[str, ...],
    mask_ids: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Record a slice of the store in one file, a capsule: events, and what was seen of the store meanwhile.

    Of what was before it was started there are only the events: what held the feed then, and how far the consumers
    were, nobody knows any more. With --follow all that is noted as it happens, at the cost of one more subscriber.

    With --mask, pseudonyms stand wherever a value of six or more characters stood that a JSONPath leads to: the same
    for the same value, made with a key that is thrown away. Where that is not possible, nothing is recorded.
    """
    from esx.capsule.masking import Masker
    from esx.capsule.paths import parse_path
    from esx.capsule.recorder import CapsuleRecorder, RecordOptions, told

    if follow is not None and until is not None:
        raise click.UsageError("--to and --follow both say where it ends: give one of them")
    if isinstance(start, str):
        start = None if follow is not None else datetime.now(UTC) - _BY_DEFAULT
    if start is None and follow is None:
        raise click.UsageError("--from end records what comes from now on: say for how long with --follow")
    paths = [parse_path(mask) for mask in masks]
    output = Path(path)
    check(output, force=force)

    async def work(opened: Database) -> RecordedCapsule:
        async with store_on(opened, application_name="esx capsule", read_only=True, max_connections=3) as store:
            # The separator between a category and what names the stream is known once the table is.
            await store.first_version()
            masker = Masker(paths, ids=mask_ids, separator=store.separator, correlation=config().fields.correlation)
            recorder = CapsuleRecorder(
                store,
                RecordOptions(start, until, follow, stream),
                masker=masker if paths or mask_ids else None,
                load=lambda begin, end: _load_seconds(begin, end, opened.label),
                on_progress=meter.update,
            )
            if follow is None:
                return await recorder.run(file)
            # What was recorded until then is what the user wants.
            with ended_by(recorder.stop, (signal.SIGINT, signal.SIGTERM)):
                narrate(f"recording to {visible(path, limit=200)}; Ctrl-C ends it early, and keeps what there is")
                return await recorder.run(file)

    with target(output, force=force) as file, Meter() as meter, database(dsn) as opened:
        recorded = run(work(opened))
    size = output.stat().st_size if output.is_file() else 0
    if as_json:
        OutputLines().json(_info_json(recorded))
    else:
        OutputLines().text(f"recorded {told(recorded)} in {path}, {size_of(size)}")
    for note in recorded.info.notes:
        (incomplete if recorded.full else narrate)(note)


def _load_seconds(begin: datetime, end: datetime, label: str) -> list[LoadSecond]:
    from esx.capsule.load_runs import seconds_between
    from esx.load.archive import Archive

    return seconds_between(Archive.of(os.environ), begin, end, label)


def _info_json(recorded: RecordedCapsule) -> str:
    from esx.capsule.format import encode

    return encode(recorded.info).decode().rstrip("\n")

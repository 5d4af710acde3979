"""esx read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.common import Lines, database_option, json_option, narrate, with_store
from esx.cli.printing import print_events
from esx.text import visible

if TYPE_CHECKING:
    from esx.store import EventStore


@click.command(name="read")
@click.argument("stream")
@click.option(
    "--from", "start", type=click.IntRange(min=0), metavar="N", help="From stream_seq N on ($all: global_seq N)."
)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N events.")
@click.option("--backwards", is_flag=True, help="Newest first.")
@click.option("--diff", "with_diff", is_flag=True, help="With what changed in data since the event before it.")
@click.option("--same-type", is_flag=True, help="With --diff: since the one before it of the same type.")
@json_option
@database_option
def command(
    dsn: str | None,
    stream: str,
    start: int | None,
    limit: int | None,
    backwards: bool,
    with_diff: bool,
    same_type: bool,
    as_json: bool,
) -> None:
    """Print the events of STREAM in order, or those of all streams: esx read '$all'.

    Fails if the stream has no events.
    """
    if same_type and not with_diff:
        raise click.UsageError("--same-type says what --diff compares with: give both")
    if with_diff and stream == "$all":
        raise click.UsageError("--diff compares the events of one stream: name a stream instead of $all")

    async def work(store: EventStore) -> None:
        lines = Lines()
        if stream == "$all":
            events = (
                store.read_all(before=None if start is None else start + 1, limit=limit, backwards=True)
                if backwards
                else store.read_all(after=max((start or 0) - 1, 0), limit=limit)
            )
        else:
            events = store.read(stream, start=start, limit=limit, backwards=backwards)
        found = False
        differ = None
        if with_diff:
            from esx.cli.differ import Differ

            differ = Differ(store, same_type=same_type)
        async for event in events:
            found = True
            if differ is None:
                print_events(lines, (event,), as_json=as_json)
            else:
                await differ.print(lines, event, as_json=as_json)
        if not found and stream != "$all":
            version = await store.version(stream)
            if version < 0:
                raise click.ClickException(
                    f"stream {visible(stream, limit=200)} has no events; `esx streams --match '*{visible(stream)}*'` "
                    "may find the one you mean"
                )
            narrate(f"nothing there: the stream's version is {version}")

    with_store(dsn, work, read_only=True)

"""esx streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.common import Lines, database_option, json_option, with_store
from esx.text import visible
from esx.times import iso

if TYPE_CHECKING:
    from esx.store import EventStore, StreamSummary

_SCREENFUL = 200


@click.command(name="streams")
@click.option("--prefix", default="", metavar="TEXT", help="Only streams whose id starts with TEXT.")
@click.option("--match", metavar="GLOB", help="Only streams whose id matches, e.g. 'account-*7'.")
@click.option(
    "--sort", type=click.Choice(["name", "recent"]), default="name", show_default=True, help="By id or by last event."
)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N streams.")
@json_option
@database_option
def command(dsn: str | None, prefix: str, match: str | None, sort: str, limit: int | None, as_json: bool) -> None:
    """List streams with their version, number of events, and last event."""

    async def work(store: EventStore) -> None:
        lines = Lines()
        table = _Table(lines)
        async for stream in store.streams(prefix=prefix, match=match, recent=sort == "recent", limit=limit):
            if as_json:
                lines.json(stream.to_json())
            else:
                table.add(stream)
        table.flush()

    with_store(dsn, work, read_only=True)


class _Table:
    """Aligns the streams a screenful at a time, so that a million of them never wait for the last."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._rows: list[tuple[str, ...]] = []
        self._headed = False

    def add(self, stream: StreamSummary) -> None:
        self._rows.append(
            (
                visible(stream.stream_id, limit=200),
                str(stream.version),
                str(stream.events),
                visible(stream.last_event_type, limit=80),
                iso(stream.last_created_at),
                str(stream.last_global_seq),
            )
        )
        if len(self._rows) >= _SCREENFUL:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        if not self._headed:
            self._rows.insert(0, ("STREAM", "VERSION", "EVENTS", "LAST TYPE", "LAST EVENT AT", "GLOBAL SEQ"))
            self._headed = True
        widths = [max(len(cell) for cell in column) for column in zip(*self._rows, strict=True)]
        for row in self._rows:
            cells = [
                cell.rjust(width) if place in (1, 2, 5) else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self._lines.text("  ".join(cells).rstrip())
        self._lines.flush()
        self._rows.clear()

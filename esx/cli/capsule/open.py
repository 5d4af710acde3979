"""esx capsule open."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esx.cli.capsule.opening import capsule_argument, opened
from esx.cli.explore import need_terminal, show_recording
from esx.cli.opening import config, decoder_of, reducer_of
from esx.cli.options import reducer_option
from esx.cli.output import Meter, progress
from esx.text import visible

if TYPE_CHECKING:
    from esx.capsule.reading import Capsule
    from esx.embedded import EmbeddedServer
    from esx.fold.reducer import Reducer
    from esx.payloads.decoder import Decoder


@click.command(name="open")
@capsule_argument
@click.option("--at", "at", metavar="TIME", help="Begin there: a time, -5m before its end, start, begin, end, or #99.")
@reducer_option
def command(path: str, at: str | None, reducer: str | None) -> None:
    """Open the explorer on a capsule: every screen shows what it would have shown then.

    The capsule goes into a database of its own in the embedded PostgreSQL, which is dropped at the end. The line at
    the top says that it is a recording, and of what time: P plays and pauses, . and , step to the next event and back,
    ) and ( change the speed, @ jumps to a time. It begins where the recording began.
    """
    from esx.embedded import DATA_DIR_VARIABLE, EmbeddedServer

    need_terminal("use `esx capsule info` and `esx capsule events` instead")
    config()  # sets the time zone
    fold, decoder = reducer_of(reducer), decoder_of(None)
    with opened(path) as capsule:
        named = os.environ.get(DATA_DIR_VARIABLE)
        with EmbeddedServer.start(Path(named) if named else None, on_progress=progress()) as server:
            asyncio.run(_show(capsule, server, at, fold, decoder))


async def _show(
    capsule: Capsule, server: EmbeddedServer, at: str | None, reducer: Reducer, decoder: Decoder | None
) -> None:
    from esx.capsule.opening import opened_recording
    from esx.capsule.places import parse_time
    from esx.database_choice import Database

    meter = Meter()
    async with opened_recording(capsule, server, on_progress=meter.update) as recording:
        meter.clear()
        player = recording.player
        if at is not None:
            try:
                await player.jump(parse_time(at, player.timeline, player.timeline.end))
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint="--at") from None
        name = visible(capsule.path.name, limit=60)
        database = Database(recording.dsn, "capsule", name, embedded=False, read_only=True)
        await show_recording(database, recording, reducer, decoder)

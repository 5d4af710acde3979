"""Opening the explorer."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING

import click

from esx.cli.opening import config, database, decoder_of, reducer_of, store_on
from esx.cli.running import run
from esx.permissions import Permissions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from esx.capsule.opening import Recording
    from esx.database_choice import Database
    from esx.fold.reducer import Reducer
    from esx.load.model import LoadOptions
    from esx.payloads.decoder import Decoder
    from esx.tui.app import Explorer


def explore(dsn: str | None, reducer: str | None = None, decoder: str | None = None) -> None:
    """Open the explorer on the database that is meant; `reducer` and `decoder` are texts for their `_of`."""
    from esx.fold.reducer import MERGE

    may_run = Permissions.of(os.environ).reducer
    fold = reducer_of(reducer) if may_run else MERGE
    decodes = decoder_of(decoder) if may_run else None
    need_terminal("use a command instead, such as `esx streams` or `esx tail`")
    with database(dsn) as opened:
        if opened.embedded and not Permissions.of(os.environ).served:
            run(prepare(opened))
        open_explorer(opened, fold, decodes)


def need_terminal(remedy: str) -> None:
    """Raise UsageError unless there is a terminal to draw on."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return  # `esx serve` shows it in a browser
    # Textual reads keys from stdin and draws on stderr.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise click.UsageError(f"the explorer needs a terminal; {remedy}")


def open_explorer(
    opened: Database,
    reducer: Reducer,
    decoder: Decoder | None = None,
    background: Callable[[], Awaitable[None]] | None = None,
    *,
    at: tuple[str | None, int | None] | None = None,
) -> None:
    """Run the explorer until the user quits; `background` runs beside it.

    `at` is a stream (None: all) and the number of an event there, where it begins.
    """
    explorer = make_explorer(opened, reducer, decoder, background, at=at)
    with _leaving(explorer):
        explorer.run()


async def show_recording(
    opened: Database, recording: Recording, reducer: Reducer, decoder: Decoder | None = None
) -> None:
    """Run the explorer on a recording until the user quits; `opened` says where it is."""
    explorer = make_explorer(opened, reducer, decoder, recording=recording)
    with _leaving(explorer):
        await explorer.run_async()


@contextlib.contextmanager
def _leaving(explorer: Explorer) -> Iterator[None]:
    from esx.tui.terminal import leaving_on_signals

    with leaving_on_signals(explorer):
        yield
    if explorer.return_code:
        raise SystemExit(explorer.return_code)


def make_explorer(
    opened: Database,
    reducer: Reducer,
    decoder: Decoder | None = None,
    background: Callable[[], Awaitable[None]] | None = None,
    *,
    at: tuple[str | None, int | None] | None = None,
    recording: Recording | None = None,
) -> Explorer:
    """Return the explorer, as `open_explorer` and `show_recording` run it."""
    # Looking for garbage in what is imported takes a tenth of the start. The explorer turns this on again.
    gc.disable()
    from esx.load.archive import Archive, RecordedRun
    from esx.load.errors import LoadFailed
    from esx.load.process import LoadRun
    from esx.postgres.connection import describe
    from esx.tui.app import Explorer

    permissions = Permissions.of(os.environ)

    def run_load(dsn: str | None, options: LoadOptions, *, sweep: str | None = None) -> RecordedRun:
        """Return a load test that is saved as it runs; the explorer may have changed to another database."""
        if permissions.served and options.yes_write_to:
            raise LoadFailed(
                "a page in a browser cannot confirm what a test may write to: leave the field  yes, write to  empty, "
                "or run it at a terminal with `esx load`"
            )
        label = opened.label if dsn == opened.dsn else describe(dsn)
        return RecordedRun(LoadRun(dsn, options), Archive.of(os.environ), label, sweep=sweep)

    return Explorer(
        opened,
        config=config(),
        background=background,
        run_load=run_load,
        reducer=reducer,
        decoder=decoder,
        permissions=permissions,
        at=at,
        recording=recording,
    )


async def prepare(opened: Database) -> None:
    """Make the tables of the embedded store, if there are none."""
    async with store_on(opened):
        pass

"""Opening the explorer."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

import click

from esx.cli.common import config, database, run, store_on
from esx.cli.reducer import reducer_of
from esx.permissions import Permissions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.database import Database
    from esx.fold.reducer import Reducer
    from esx.load.model import LoadOptions


def explore(dsn: str | None, reducer: str | None = None) -> None:
    """Open the explorer on the database that is meant; `reducer` is what folds streams in it, see `reducer_of`."""
    from esx.fold.reducer import MERGE

    fold = reducer_of(reducer) if Permissions.of(os.environ).reducer else MERGE
    need_terminal("use a command instead, such as `esx streams` or `esx tail`")
    with database(dsn) as opened:
        if opened.embedded and not Permissions.of(os.environ).served:
            run(prepare(opened))
        open_explorer(opened, fold)


def need_terminal(remedy: str) -> None:
    """Raise UsageError unless there is a terminal to draw on."""
    if os.environ.get("TEXTUAL_DRIVER"):
        # In a browser, which `esx serve` draws on.
        return
    # Textual reads keys from stdin and draws on stderr.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise click.UsageError(f"the explorer needs a terminal; {remedy}")


def open_explorer(opened: Database, reducer: Reducer, background: Callable[[], Awaitable[None]] | None = None) -> None:
    """Run the explorer until it is left; `background` runs beside it."""
    # What is imported stays: to look for garbage in it is a tenth of the start. The explorer turns this on again.
    gc.disable()
    from esx.load.archive import Archive, RecordedRun
    from esx.load.errors import LoadFailed
    from esx.load.process import LoadRun
    from esx.store.connection import describe
    from esx.tui.app import Explorer
    from esx.tui.terminal import leaving_on_signals

    permissions = Permissions.of(os.environ)

    def run_load(dsn: str | None, options: LoadOptions) -> RecordedRun:
        """Return a load test that is saved as it goes; the explorer may have gone on to another database."""
        if permissions.served and options.yes_write_to:
            raise LoadFailed(
                "a page in a browser cannot confirm what a test may write to: leave the field  yes, write to  empty, "
                "or run it at a terminal with `esx load`"
            )
        label = opened.label if dsn == opened.dsn else describe(dsn)
        return RecordedRun(LoadRun(dsn, options), Archive.of(os.environ), label)

    explorer = Explorer(
        opened.dsn,
        label=opened.label,
        embedded=opened.embedded,
        name=opened.name,
        read_only=opened.read_only,
        store=opened.store,
        trust_owner=opened.trust_owner,
        statement_timeout=opened.statement_timeout,
        config=config(),
        background=background,
        run_load=run_load,
        reducer=reducer,
        permissions=permissions,
    )
    with leaving_on_signals(explorer):
        explorer.run()
    if explorer.return_code and explorer.return_code > 128:
        raise SystemExit(explorer.return_code)


async def prepare(opened: Database) -> None:
    """Make the tables of the embedded store, if there are none."""
    async with store_on(opened):
        pass

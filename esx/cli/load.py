"""esx load."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from esx.cli.common import Lines, database, database_option, json_option, narrate, run, store_on
from esx.cli.ending import ended_by
from esx.cli.load_group import LoadGroup
from esx.cli.load_live import Live
from esx.cli.load_options import load_options, workload_options

if TYPE_CHECKING:
    from esx.cli.ending import Ending
    from esx.database import Database
    from esx.load.model import LoadOptions, LoadSummary


@click.group(name="load", cls=LoadGroup, invoke_without_command=True)
@workload_options
@json_option
@database_option
@click.pass_context
def command(ctx: click.Context, /, dsn: str | None, as_json: bool, **knobs: Any) -> None:
    """Load-test optimistic concurrency: writers read a stream's version and append at it, all at once.

    Runs the bundled Locust scenario in a process of its own, shows its progress, and ends with a summary and a
    verdict: whether the store kept exactly what it acknowledged. The events go to streams named load-RUN-N. Ctrl-C
    or SIGTERM ends it early, with the summary of what ran. Exits with 1 unless the verdict is "pass".
    """
    if ctx.invoked_subcommand is not None:
        return
    options = load_options(knobs)
    with database(dsn, writing=True) as opened:
        summary, ending = run(_run(opened, options, as_json=as_json))
    if summary.interrupted:
        ending.leave()
    if summary.verdict != "pass":
        raise click.ClickException(
            f"the verdict on run {summary.run} is {summary.verdict or 'missing'}: {'; '.join(summary.evidence)}"
        )


async def _run(opened: Database, options: LoadOptions, *, as_json: bool) -> tuple[LoadSummary, Ending]:
    from esx.load.archive import Archive, RecordedRun
    from esx.load.live_text import LiveText
    from esx.load.model import LoadSummary, to_dict
    from esx.load.process import LoadRun
    from esx.load.report import render_progress, render_summary

    async with store_on(opened, application_name="esx load") as store:
        await store.head()  # says now, and in one line, what is wrong with the database
    lines = Lines()
    load = RecordedRun(LoadRun(opened.dsn, options), Archive.of(os.environ), opened.label)
    narrate(f"{options.users} writers on {options.streams} streams for {options.duration:g} s in {opened.label}")
    summary: LoadSummary | None = None
    in_place = LiveText(options)
    with Live(quiet=as_json) as live, ended_by(load.stop) as ending:
        try:
            async for line in load:
                if isinstance(line, LoadSummary):
                    summary = line
                elif live.in_place:
                    live.show(in_place.lines(line))
                else:
                    live.keep(render_progress(line))
                if as_json:
                    lines.json(json.dumps(to_dict(line), ensure_ascii=False))
                    lines.flush()
        finally:
            await load.aclose()
    assert summary is not None
    if not as_json:
        for text in render_summary(summary).splitlines():
            lines.text(text)
    if load.problem is not None:
        narrate(load.problem)
    elif not as_json:
        narrate(f"saved; `esx load report {summary.run}` makes a page of it")
    return summary, ending

"""esx load: ``esx load --users 20`` runs a test, and is a group of commands such as ``esx load report RUN``."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from esx.cli.lazy import LazyGroup
from esx.cli.load.multiples import as_multiples, as_share, run_multiples
from esx.cli.load.options import load_options, workload_options_but
from esx.cli.opening import database, store_on
from esx.cli.options import as_seconds, database_option, json_option
from esx.cli.output import Live, OutputLines, narrate
from esx.cli.running import ended_by, run
from esx.text import visible

if TYPE_CHECKING:
    from esx.cli.running import Ending
    from esx.database_choice import Database
    from esx.load.model import LoadOptions, LoadSummary


_INHERITED = frozenset({"dsn"})
"""The parameters that may stand before the name of a subcommand."""


class _LoadGroup(LazyGroup):
    package = "esx.cli.load"
    listed = {  # noqa: RUF012 - declared in the base class
        "runs": "List the runs that were saved.",
        "report": "Write a run as one HTML page with plots.",
        "compare": "Put two or more runs side by side.",
        "learn": "Learn a store's own traffic, for --like.",
        "sweep": "Turn knobs, and see where optimistic concurrency bends.",
        "clean": "Delete the events of a run from the store.",
    }
    heading = "Looking back, and several runs"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # An option of the test before the name of a subcommand is refused.
        for parameter in self.get_params(ctx):
            name = parameter.name or ""
            if name not in _INHERITED and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"{parameter.opts[0]} stands before {args[0]!r}, where it would have no effect: put it after", ctx
                )
        return super().resolve_command(ctx, args)


@click.group(name="load", cls=_LoadGroup, invoke_without_command=True)
@click.option(
    "--times",
    default="1",
    show_default=True,
    callback=as_multiples,
    metavar="X[,X]",
    help="How many times as much as was learned, or as fast as was recorded; several for --like, such as 1,2,4,8, run "
    "one after the other.",
)
@click.option(
    "--most-conflicts",
    default="0.05",
    show_default=True,
    callback=as_share,
    metavar="X",
    help="With --like, the share of attempts that may be conflicts: say at which multiple more are.",
)
@click.option(
    "--most-latency",
    default="100ms",
    show_default=True,
    callback=as_seconds,
    metavar="T",
    help="With --like, within how long 99 of 100 commands are to end: say at which multiple they do not.",
)
@workload_options_but("times")
@json_option
@database_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    dsn: str | None,
    as_json: bool,
    times: tuple[float, ...],
    most_conflicts: float,
    most_latency: float,
    **knobs: Any,
) -> None:
    """Load-test optimistic concurrency: writers read a stream's version and append at it, all at once.

    Runs the bundled Locust scenario in a process of its own, shows its progress, and ends with a summary and a
    verdict: whether the store kept exactly what it acknowledged. The events go to streams named load-RUN-N. Ctrl-C
    or SIGTERM ends it early, with a summary. Exits with 1 unless the verdict is "pass".

    With --like FILE, which `esx load learn` makes, they append as a store's own traffic does, --times as often, and it
    says at which multiple conflicts or latency pass their bounds. With --replay CAPSULE they send its appends again, at
    their recorded times.
    """
    if ctx.invoked_subcommand is not None:
        return
    from esx.load.learn.scaling import LoadBounds, multiple_of, scaling_lines

    options = load_options({**knobs, "times": times[0]})
    if options.replay is not None and len(times) == 1:
        from esx.capsule.appends import as_recorded

        options = as_recorded(options, whole=ctx.get_parameter_source("duration") is ParameterSource.DEFAULT)
    for name in ("most_conflicts", "most_latency"):
        if options.like is None and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} says something only with --like FILE: add it")
    bounds = LoadBounds(most_conflicts, most_latency * 1000)
    if len(times) > 1:
        run_multiples(dsn, options, times, bounds, as_json=as_json)
        return
    with database(dsn, writing=True, appender=not options.by_esx) as opened:
        options = replace(options, store=opened.store)
        summary, ending = run(_run(replace(opened, store=options.where), options, as_json=as_json))
    if options.like is not None and not as_json and summary.commands:
        OutputLines().text("", *scaling_lines([multiple_of(summary, options.times)], bounds))
    if summary.interrupted:
        ending.leave()
    if summary.verdict != "pass":
        raise click.ClickException(
            f"the verdict on run {summary.run} is {summary.verdict or 'missing'}: {'; '.join(summary.evidence)}"
        )


async def _run(opened: Database, options: LoadOptions, *, as_json: bool) -> tuple[LoadSummary, Ending]:
    from esx.load.appending import open_appender, told
    from esx.load.archive import Archive, RecordedRun
    from esx.load.model import LoadSummary, to_dict
    from esx.load.process import LoadRun
    from esx.load.report.live import LiveText
    from esx.load.report.text import render_progress, render_summary

    async with store_on(opened, application_name="esx load") as store:
        await store.head()  # fails early, in one line, if the database cannot be used
        writes = told(await open_appender(store, options), store)
    lines = OutputLines()
    load = RecordedRun(
        LoadRun(opened.dsn, options, trust_owner=opened.trust_owner), Archive.of(os.environ), opened.label
    )
    learned = options.like or options.replay
    on = f"on {options.streams} streams" if learned is None else f"as in {visible(learned, limit=200)}"
    narrate(f"{options.users} writers {on} for {options.duration:g} s in {opened.label}")
    if writes is not None:
        narrate(writes)
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
                    lines.value(to_dict(line))
                    lines.flush()
        finally:
            await load.aclose()
    assert summary is not None
    if not as_json:
        lines.text(*render_summary(summary).splitlines())
    if load.problem is not None:
        narrate(load.problem)
    elif not as_json:
        narrate(f"saved; `esx load report {summary.run}` makes a page of it")
    return summary, ending

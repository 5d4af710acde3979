"""esx load sweep."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from esx.cli.load.options import load_options, placed, workload_options
from esx.cli.opening import database, store_on
from esx.cli.options import database_option, json_option, partial_option
from esx.cli.output import Live, OutputLines, incomplete, narrate
from esx.cli.running import ended_by, run
from esx.cli.writing import FILE, check, force_option, write_text

if TYPE_CHECKING:
    from esx.cli.running import Ending
    from esx.database_choice import Database
    from esx.load.model import LoadOptions
    from esx.load.sweep.sweep import Sweep, Sweeps

_NOT_FIXED = frozenset(
    {"dsn", "as_json", "html", "svg", "markdown", "force", "again", "show", "yes_write_to", "allow_partial"}
)


class _Files(NamedTuple):
    """Where a sweep is to be written."""

    html: Path | None
    svg: Path | None
    markdown: Path | None
    force: bool

    def check(self) -> None:
        """Raise what prevents writing, before anything runs."""
        for path in self[:3]:
            if path is not None:
                check(path, force=self.force)

    def write(self, sweep: Sweep) -> None:
        if not any(self[:3]):
            return
        from esx.load.report.pages.sweep import sweep_page, sweep_picture
        from esx.load.sweep.text import sweep_markdown

        for path, text in zip(self[:3], (sweep_page, sweep_picture, sweep_markdown), strict=True):
            if path is not None:
                write_text(path, text(sweep), force=self.force)
                narrate(f"wrote {path}")


@click.command(name="sweep")
@click.option(
    "--vary",
    multiple=True,
    metavar="KNOB=V1,V2",
    help="A knob and its values, e.g. users=1,4,16 or strategy=conditional,row-lock; up to three times.",
)
@click.option("--rounds", type=int, default=1, show_default=True, metavar="N", help="Measure everything N times.")
@click.option("--again", metavar="SWEEP", help="Repeat a saved sweep with its parameters; `last` is the newest.")
@click.option("--show", metavar="SWEEP", help="Show a saved sweep; nothing is run.")
@click.option("--list", "listed", is_flag=True, help="List the saved sweeps; nothing is run.")
@click.option("--html", type=FILE, metavar="FILE", help="Write a page of it.")
@click.option("--svg", type=FILE, metavar="FILE", help="Write its curves as SVG.")
@click.option("--markdown", type=FILE, metavar="FILE", help="Write its table as Markdown.")
@force_option
@workload_options
@json_option
@partial_option
@database_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    vary: tuple[str, ...],
    rounds: int,
    again: str | None,
    show: str | None,
    listed: bool,
    html: Path | None,
    svg: Path | None,
    markdown: Path | None,
    force: bool,
    dsn: str | None,
    as_json: bool,
    **knobs: Any,
) -> None:
    """Turn one to three knobs of the load test, and see where optimistic concurrency bends.

    Every combination runs for --duration; with --rounds all of them take turns. The sweep is saved after each run, so
    Ctrl-C keeps what has run, and `--again` repeats it. The first knob whose values are numbers is the axis of the
    curves.

    \b
    esx load sweep --vary hot-streams=1,4,16,64 --hot-share 1 --users 32 --duration 5s
    esx load sweep --vary users=1,4,16,64 --vary strategy=conditional,row-lock --duration 5s --html sweep.html
    """
    from esx.load.errors import InvalidOptions
    from esx.load.model import LoadOptions
    from esx.load.sweep.sweep import Plan, Sweeps, plan_of

    sweeps = Sweeps.of(os.environ)
    if listed:
        _list(sweeps, as_json=as_json)
        return
    if again is not None or show is not None:
        _alone(ctx, "--again" if again is not None else "--show", both=again is not None and show is not None)
    files = _Files(html, svg, markdown, force)
    files.check()
    if show is not None:
        _tell(sweeps.load(show), files, as_json=as_json)
        return
    if again is not None:
        old = sweeps.load(again).plan
        base = replace(old.base, yes_write_to=knobs["yes_write_to"])
        plan = Plan(load_options(asdict(base)), old.vary, old.rounds)
    else:
        try:
            # The combinations are checked, not the options below them, which may be invalid without the varied knobs.
            plan = plan_of(LoadOptions(**placed(knobs)), vary, rounds)
        except InvalidOptions as error:
            raise click.UsageError(str(error)) from None
    with database(dsn, writing=True, appender=not plan.base.by_esx) as opened:
        plan = replace(plan, base=replace(plan.base, store=opened.store or plan.base.store))
        there = replace(opened, store=plan.base.where)
        sweep, stopped = run(run_sweep(there, sweeps.new(plan, opened.label), sweeps, as_json=as_json))
    _tell(sweep, files, as_json=False, quiet=as_json)
    if stopped is not None:
        stopped.leave()
    failed = [result.run for result in sweep.results if result.verdict != "pass"]
    if failed:
        raise click.ClickException(f"{len(failed)} runs did not pass their verdict: {', '.join(failed[:5])}")


def _list(sweeps: Sweeps, *, as_json: bool) -> None:
    from esx.load.sweep.text import sweep_command
    from esx.times import clock

    problems: list[str] = []
    found = sweeps.all(problems)
    lines = OutputLines()
    for sweep in found:
        ran, planned, command_text = len(sweep.results), len(sweep.plan.runs()), sweep_command(sweep)
        if as_json:
            fields = {"sweep": sweep.id, "started_at": sweep.started_at.isoformat(), "runs": ran, "planned": planned}
            lines.value({**fields, "command": command_text})
        else:
            lines.text(f"{sweep.id}  {clock(sweep.started_at)[:16]}  {ran} of {planned} runs", f"    {command_text}")
    if not found and not as_json:
        narrate(f"no sweep is saved in {sweeps.directory}: `esx load sweep --vary ...` makes one")
    for problem in problems:
        incomplete(problem)


def _alone(ctx: click.Context, option: str, *, both: bool) -> None:
    """Refuse options that the saved sweep fixes."""
    if both:
        raise click.UsageError("--again and --show exclude each other: use one", ctx)
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name not in _NOT_FIXED and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} and {option} exclude each other: use one", ctx)


async def run_sweep(opened: Database, sweep: Sweep, sweeps: Any, *, as_json: bool) -> tuple[Sweep, Ending | None]:
    """Run a sweep and show its progress; return it, and what ended it early, if anything did."""
    from esx.load.appending import open_appender, told
    from esx.load.archive import Archive, RecordedRun
    from esx.load.model import LoadProgress
    from esx.load.process import LoadRun
    from esx.load.sweep.sweep import Result, SweepRun, Turn, point_text

    async with store_on(opened, application_name="esx load") as store:
        await store.head()  # fails early, in one line, if the database cannot be used
        writes = told(await open_appender(store, sweep.plan.base), store)
    archive = Archive.of(os.environ)

    def start(options: LoadOptions) -> RecordedRun:
        return RecordedRun(
            LoadRun(opened.dsn, options, trust_owner=opened.trust_owner), archive, opened.label, sweep=sweep.id
        )

    under_way = SweepRun(sweep, start, sweeps.save)
    plan = sweep.plan
    narrate(f"sweep {sweep.id}: {len(plan.runs())} runs of {plan.base.duration:g} s in {opened.label}")
    if writes is not None:
        narrate(writes)
    lines = OutputLines()
    with Live(quiet=as_json) as live, ended_by(under_way.stop) as ending:
        turn: Turn | None = None
        async for said in under_way:
            if isinstance(said, Turn):
                turn = said
                live.show([_turn_text(turn, turn.left), point_text(turn.point)])
            elif isinstance(said, LoadProgress):
                assert turn is not None
                left = max(turn.left - said.elapsed, 0.0)
                live.show([_turn_text(turn, left), f"{point_text(turn.point)}  {said.goodput:,.0f}/s"])
            elif isinstance(said, Result):
                assert turn is not None
                live.keep(
                    f"{turn.number:>4}/{turn.runs}  {said.goodput:>8,.0f}/s  {said.conflict_rate:>6.1%}  "
                    f"{point_text(said.point)}"
                )
                if as_json:
                    lines.value({"sweep": sweep.id, **asdict(said)})
                    lines.flush()
    return sweep, ending if under_way.stopped else None


def _turn_text(turn: Any, left: float) -> str:
    minutes, seconds = divmod(round(left), 60)
    return f"run {turn.number} of {turn.runs}, {minutes}:{seconds:02d} left"


def _tell(sweep: Sweep, files: _Files, *, as_json: bool, quiet: bool = False) -> None:
    from esx.load.sweep.text import sweep_lines

    lines = OutputLines()
    if as_json:
        for result in sweep.results:
            lines.value({"sweep": sweep.id, **asdict(result)})
    elif not quiet:
        for line in sweep_lines(sweep, colour=sys.stdout.isatty()):
            # Not `text`, which would escape the colours; what comes from a file is visible already.
            click.echo(line)
    files.write(sweep)

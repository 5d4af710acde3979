"""The runs of `esx load --like FILE --times 1,2,4`: the same traffic, at several multiples."""

from __future__ import annotations

import math
import os
import secrets
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from esx.cli.opening import database
from esx.cli.output import OutputLines, narrate
from esx.cli.running import run

if TYPE_CHECKING:
    from esx.load.learn.scaling import LoadBounds
    from esx.load.model import LoadOptions

_MOST = 100


def as_multiples(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    """Read an option as numbers above 0, with commas: its callback."""
    try:
        found = tuple(float(each) for each in value.split(","))
    except ValueError:
        found = ()
    if not found or len(found) > _MOST or not all(math.isfinite(each) and each > 0 for each in found):
        raise click.BadParameter(f"{value!r} is no list of multiples: use e.g. 3, or 1,2,4,8", ctx, parameter)
    if len(set(found)) < len(found):
        raise click.BadParameter(f"{value!r} names a multiple twice", ctx, parameter)
    return found


def as_share(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    """Read an option as a share from 0 to 1: its callback."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1:
        raise click.BadParameter(f"{value!r} is no share: use a number from 0 to 1, e.g. 0.05", ctx, parameter)
    return found


def run_multiples(
    dsn: str | None, options: LoadOptions, times: tuple[float, ...], bounds: LoadBounds, *, as_json: bool
) -> None:
    """Run the load test at each multiple, as a sweep, and say where a bound is passed."""
    from esx.cli.load.sweep import run_sweep
    from esx.load.errors import InvalidOptions
    from esx.load.learn.scaling import multiples_of, passed, scaling_lines
    from esx.load.sweep.sweep import Sweeps, plan_of

    if options.like is None:
        what = "and --replay takes one" if options.replay is not None else "but nothing says of what: add --like FILE"
        raise click.UsageError(f"--times has several multiples, {what}")
    try:
        # All have the same bursts, so that they differ by their multiples alone.
        seed = secrets.randbelow(2**31) if options.seed is None else options.seed
        plan = plan_of(replace(options, times=1.0, seed=seed), [f"times={','.join(f'{each:g}' for each in times)}"], 1)
    except InvalidOptions as error:
        raise click.UsageError(str(error)) from None
    sweeps = Sweeps.of(os.environ)
    with database(dsn, writing=True, appender=not options.by_esx) as opened:
        plan = replace(plan, base=replace(plan.base, store=opened.store or plan.base.store))
        there = replace(opened, store=plan.base.where)
        sweep, stopped = run(run_sweep(there, sweeps.new(plan, opened.label), sweeps, as_json=as_json))
    multiples = multiples_of(sweep.results)
    lines = OutputLines()
    if as_json:
        lines.value({"kind": "multiples", "bounds": asdict(bounds), "passed": passed(multiples, bounds)})
    elif multiples:
        lines.text(*scaling_lines(multiples, bounds))
        narrate(f"saved; `esx load sweep --show {sweep.id}` draws it")
    if stopped is not None:
        stopped.leave()
    failed = [result.run for result in sweep.results if result.verdict != "pass"]
    if failed:
        raise click.ClickException(f"{len(failed)} runs did not pass their verdict: {', '.join(failed[:5])}")

"""esx check."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from esx.cli.opening import with_store
from esx.cli.options import as_seconds, database_option
from esx.cli.output import OutputLines
from esx.text import visible

if TYPE_CHECKING:
    from esx.eventstore import EventStore
    from esx.store.operate.checking import CheckVerdict

_UNKNOWN = 3
_NONE = "none"


class _Plugin(click.Command):
    """A command as monitoring plugins are: whatever goes wrong is one line on stdout, and exit code 3."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except click.UsageError as error:
            raise _unknown(error.format_message()) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except TimeoutError as error:
            raise _unknown(f"no answer within {ctx.params['timeout']:g} s") from error
        except click.ClickException as error:
            raise _unknown(error.format_message()) from error
        except Exception as error:
            raise _unknown(str(error) or type(error).__name__) from error


def _unknown(reason: str) -> click.exceptions.Exit:
    OutputLines().text(f"ESX UNKNOWN - {visible(reason).replace('|', '/')}")
    return click.exceptions.Exit(_UNKNOWN)


class _Count(click.IntRange):
    """A number, or none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == _NONE else super().convert(value, param, ctx)


def _as_limit(ctx: click.Context, parameter: click.Parameter, value: str) -> float | None:
    return None if value == _NONE else as_seconds(ctx, parameter, value)


@click.command(name="check", cls=_Plugin)
@click.option("--max-lag", type=_Count(0), default=1000, show_default=True, metavar="N|none", help="Events behind.")
@click.option(
    "--max-age",
    default="30s",
    callback=_as_limit,
    metavar="T|none",
    show_default=True,
    help="Oldest event not handled.",
)
@click.option(
    "--max-held",
    default="10s",
    callback=_as_limit,
    metavar="T|none",
    show_default=True,
    help="How long a writer is open.",
)
@click.option(
    "--timeout", default="10s", callback=as_seconds, metavar="T", show_default=True, help="How long to wait for it all."
)
@database_option
@click.pass_context
def command(
    ctx: click.Context,
    dsn: str | None,
    max_lag: int | None,
    max_age: float | None,
    max_held: float | None,
    timeout: float,
) -> None:
    """Judge the consumers and the feed, in one line as monitoring plugins print it, with performance data.

    Exit codes, for this command alone: 0 ok, 1 warning, 2 critical, 3 unknown, also for wrong usage and where the
    database is not reached. A limit that is exceeded is a warning, by ten times critical; for what is paused or held by
    a writer it stays a warning. A consumer that failed is critical, parked events are a warning.

    A figure that is not known is U in the performance data, and unknown (3), if nothing is worse: the lag of a consumer
    of another tool that keeps no number of the global order, an age without times, the writers on a standby. The limit
    `none` leaves a figure out.
    """

    async def work(store: EventStore) -> CheckVerdict:
        return await store.check(limits)

    async def bounded(store: EventStore) -> CheckVerdict:
        async with asyncio.timeout(timeout):
            return await work(store)

    from esx.store.operate.checking import CheckLimits

    limits = CheckLimits(max_lag, max_age, max_held)
    verdict = with_store(dsn, bounded, read_only=True, timeout=timeout, retry_for=timeout)
    OutputLines().text(verdict.line(limits))
    ctx.exit(int(verdict.level))

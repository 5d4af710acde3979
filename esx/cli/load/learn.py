"""esx load learn."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esx.cli.opening import with_store
from esx.cli.options import as_moment, database_option
from esx.cli.output import OutputLines, ProgressLine, narrate
from esx.cli.writing import FILE, check, force_option, write_text
from esx.text import counted, visible

if TYPE_CHECKING:
    from datetime import datetime

    from esx.eventstore import EventStore
    from esx.load.learn.profile import TrafficProfile


@click.command(name="learn")
@click.option(
    "--from",
    "since",
    callback=as_moment,
    default="-7d",
    show_default=True,
    metavar="TIME",
    help="Learn from what was appended since '2026-08-07 14:00' or -7d.",
)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Where to write it (default: to stdout).")
@force_option
@database_option
def command(dsn: str | None, since: datetime | None, output: Path | None, force: bool) -> None:
    """Learn what a store's own traffic is like, for a load test: `esx load --like FILE --times 3`.

    It finds how many appends came in each hour and how bursty they were, which categories and types of events they had,
    how large, how many events an append had, how many began a stream, and how hot the hottest streams are. What is
    inferred and not measured is marked so in the file, which is TOML to read and to change.

    It only reads: some 180,000 events, whatever the store's size. The file has names of categories and types, and no
    data.
    """
    if output is not None:
        check(output, force=force)

    async def work(store: EventStore) -> TrafficProfile | None:
        from esx.load.learn.fit import fit

        with ProgressLine() as progress:
            sample = await store.traffic(since, on_progress=progress)
            return None if sample is None else fit(sample, store.address)

    began = time.monotonic()
    profile = with_store(dsn, work, read_only=True)
    if profile is None:
        raise click.ClickException("there are no events since then: name an earlier time, --from -90d")
    from esx.load.learn.profile import profile_text

    text = profile_text(profile)
    if output is None:
        OutputLines().text(*text.splitlines())
    else:
        write_text(output, text, force=force)
    _tell(profile, time.monotonic() - began)
    if output is not None:
        name = visible(str(output))
        narrate(f"wrote {name}; `esx load --like {name} --times 3` sends three times as many to a test store")


def _tell(profile: TrafficProfile, seconds: float) -> None:
    arrivals = profile.arrivals
    share = min(profile.events_read / max(profile.events, 1), 1.0)
    narrate(
        f"read {counted(profile.events_read, 'row')}, {share:.1%} of about {counted(profile.events, 'event')}, "
        f"in {seconds:.1f} s"
    )
    hours = arrivals.part_seconds / 3600
    when = "the busiest hour" if hours == 1 else f"the busiest {hours:.3g} hours"
    narrate(
        f"{_rate(arrivals.busiest)} appends/s in {when}, {profile.events_per_append:.2f} events each, "
        f"{counted(len(profile.categories), 'category', 'categories')}"
    )
    if "appends" in profile.inferred:
        narrate(profile.inferred["appends"])


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"

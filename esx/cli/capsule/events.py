"""esx capsule events."""

from __future__ import annotations

import click

from esx.cli.capsule.opening import capsule_argument, opened
from esx.cli.options import completing
from esx.cli.output import OutputLines

_OF = ("events", "feed", "consumers", "health", "doctor", "load", "tables")


@click.command(name="events")
@capsule_argument
@click.option(
    "--of",
    "what",
    type=click.Choice(_OF),
    default="events",
    show_default=True,
    help="What to print: the events, or what was seen beside.",
)
@click.option(
    "--stream", metavar="GLOB", shell_complete=completing("stream_glob"), help="Only events of matching streams."
)
def command(path: str, what: str, stream: str | None) -> None:
    """Print the events of a capsule as NDJSON, as `esx export` does, so that `esx import` reads them.

    With --of it prints what was seen beside them, a line each with its time: moments of the feed, changes of consumers,
    figures, findings, seconds of load tests, or the definitions of the tables.
    """
    from esx.capsule.format import encode
    from esx.glob import glob_to_regex

    if stream is not None and what != "events":
        raise click.UsageError(f"--stream chooses events, and --of {what} has none")
    with opened(path) as capsule:
        lines = OutputLines()
        if what != "events":
            for value in capsule.records(f"{what}.ndjson"):
                lines.ndjson(encode(value))
            return
        import re

        matches = (lambda _: True) if stream is None else re.compile(glob_to_regex(stream), re.DOTALL).search
        for few in capsule.events():
            chosen = [line for event, line in few if matches(event.stream_id or "")]
            if chosen:
                lines.ndjson(b"\n".join(chosen) + b"\n")

"""esx capsule: a group of commands such as ``esx capsule record``."""

from __future__ import annotations

import click

from esx.cli.lazy import LazyGroup


class _Group(LazyGroup):
    package = "esx.cli.capsule"
    listed = {  # noqa: RUF012 - declared in the base class
        "record": "Record a slice of the store, or what happens from now on, in one file.",
        "open": "Open the explorer on a capsule, with a recorded clock.",
        "info": "Say what is in a capsule.",
        "verify": "Read all of a capsule and compare it with its sums.",
        "events": "Print the events of a capsule, or what was seen beside.",
    }


@click.group(name="capsule", cls=_Group)
def command() -> None:
    """Take a slice of a store along: its events, and what was seen of the feed and the consumers meanwhile."""

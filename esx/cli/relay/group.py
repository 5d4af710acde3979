"""esx relay: a group of commands such as ``esx relay kafka``."""

from __future__ import annotations

import click

from esx.cli.lazy import LazyGroup


class _Group(LazyGroup):
    package = "esx.cli.relay"
    listed = {  # noqa: RUF012 - declared in the base class
        "kafka": "Send events to topics of Kafka.",
        "kinesis": "Send events to a stream of Amazon Kinesis.",
        "nats": "Send events to subjects of NATS JetStream.",
        "webhook": "Post events to a web address.",
        "parked": "List the events that a relay has parked or skipped.",
        "retry": "Let a relay send its parked events again.",
        "skip": "Let a relay go on without an event.",
    }


@click.group(name="relay", cls=_Group)
def command() -> None:
    """Hand the ordered feed to another system: every event, in the order of its stream.

    `esx consumers` lists relays and says how far each is, and pauses, resets and deletes them.
    """

"""esx relay kinesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.opening import with_store
from esx.cli.options import as_relay_start, database_option, filter_options, json_option, partial_option

if TYPE_CHECKING:
    from datetime import datetime

    from esx.eventstore import EventStore


@click.command(name="kinesis")
@click.option("--stream-name", required=True, metavar="NAME", help="The stream of Kinesis.")
@click.option("--region", metavar="REGION", help="The region, if the environment or boto3's files do not name it.")
@click.option("--endpoint-url", metavar="URL", help="Another address than Amazon's.")
@click.option(
    "--name", default="kinesis", show_default=True, help="The relay's name, under which its position is kept."
)
@click.option(
    "--format",
    "message_format",
    type=click.Choice(["cloudevents-structured", "json"]),
    default="cloudevents-structured",
    show_default=True,
    help="CloudEvents as JSON, or the JSON of `esx tail --json`.",
)
@click.option("--source", metavar="URI", help="The source of CloudEvents, instead of esx://DATABASE/TABLE.")
@filter_options
@click.option(
    "--from",
    "start",
    callback=as_relay_start,
    metavar="start|end|N|TIME",
    help="Where a new relay begins, instead of at the first event; later runs go on where the last one ended.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "park"]),
    default="stop",
    show_default=True,
    help="At an event that is too large: stop, or put it and the later ones of its stream aside and go on.",
)
@click.option("--once", is_flag=True, help="End at the safe position.")
@json_option
@partial_option
@database_option
def command(
    dsn: str | None,
    stream_name: str,
    region: str | None,
    endpoint_url: str | None,
    name: str,
    message_format: str,
    source: str | None,
    stream: str | None,
    event_type: str | None,
    where: str | None,
    start: int | datetime | str | None,
    on_error: str,
    once: bool,
    as_json: bool,
) -> None:
    """Send events to a stream of Amazon Kinesis, with the event's stream as the partition key, until it is ended.

    At least once: after a crash at most 10,000 events come again; their ids tell. A request has at most one record of
    each stream of events, so that their order holds. boto3 finds the credentials as usual.
    """
    from esx.filters import Filter
    from esx.relay.cloudevents import MessageFormat
    from esx.relay.kinesis import KinesisTarget

    target = KinesisTarget(
        stream_name,
        region=region,
        endpoint_url=endpoint_url,
        message_format=MessageFormat(message_format),
        source=source,
    )

    async def work(store: EventStore) -> None:
        from esx.cli.relay.running import run_relay

        chosen = Filter(stream, event_type, where)
        await run_relay(store, name, target, chosen, start=start, on_error=on_error, once=once, as_json=as_json)

    with_store(dsn, work)

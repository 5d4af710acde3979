"""esx relay kinesis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from esx.cli.opening import with_store
from esx.cli.relay.options import RelayOptions, body_format_option, relay_options

if TYPE_CHECKING:
    from esx.eventstore import EventStore


@click.command(name="kinesis")
@click.option("--stream-name", required=True, metavar="NAME", help="The stream of Kinesis.")
@click.option("--region", metavar="REGION", help="The region, if the environment or boto3's files do not name it.")
@click.option("--endpoint-url", metavar="URL", help="Another address than Amazon's.")
@body_format_option
@relay_options("kinesis")
def command(
    dsn: str | None,
    stream_name: str,
    region: str | None,
    endpoint_url: str | None,
    message_format: str,
    source: str | None,
    **common: Any,
) -> None:
    """Send events to a stream of Amazon Kinesis, with the event's stream as the partition key, until it is ended.

    At least once: after a crash at most 10,000 events come again; their ids tell. A request has at most one record of
    each stream of events, so that their order holds. boto3 finds the credentials as usual.
    """
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

        await run_relay(store, target, RelayOptions(**common))

    with_store(dsn, work)

"""esx relay kafka."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from esx.cli.opening import with_store
from esx.cli.output import narrate
from esx.cli.relay.options import RelayOptions, relay_options
from esx.text import visible

if TYPE_CHECKING:
    from esx.eventstore import EventStore


def _pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not key=value", ctx, parameter)
        found[key.strip()] = text.strip()
    return found


@click.command(name="kafka")
@click.option("-b", "--brokers", metavar="HOST:PORT", help="The brokers, separated by commas.")
@click.option(
    "--topic",
    required=True,
    metavar="TEMPLATE",
    help="The topic; {category} is the part of the stream's id before the first '-', as in 'events.{category}'.",
)
@click.option(
    "--format",
    "message_format",
    type=click.Choice(["cloudevents", "cloudevents-structured", "json"]),
    default="cloudevents",
    show_default=True,
    help="CloudEvents with their attributes in headers or in the value, or the JSON of `esx tail --json`.",
)
@click.option(
    "--delivery",
    type=click.Choice(["exactly-once", "at-least-once"]),
    default="exactly-once",
    show_default=True,
    help="With transactions of Kafka, or without.",
)
@click.option(
    "-F",
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Settings of the client, key=value in each line; the place for secrets.",
)
@click.option(
    "-X", "settings", multiple=True, callback=_pairs, metavar="KEY=VALUE", help="A setting of the client; no secrets."
)
@click.option("--create-topics", is_flag=True, help="Make topics that are missing, instead of stopping.")
@click.option(
    "--partitions",
    type=click.IntRange(1),
    metavar="N",
    help="How many partitions such a topic gets, if not the broker's default.",
)
@relay_options("kafka")
def command(
    dsn: str | None,
    brokers: str | None,
    topic: str,
    message_format: str,
    source: str | None,
    delivery: str,
    config: Path | None,
    settings: dict[str, str],
    create_topics: bool,
    partitions: int | None,
    **common: Any,
) -> None:
    """Send events to topics of Kafka, with the stream's id as the key, until it is ended.

    Exactly once: consumers must set isolation.level=read_committed, which is not the default of Kafka's own clients. At
    least once: after a crash at most 10,000 events come again. One instance of a name is active, others wait.

    Settings of the client have the names of librdkafka. A secret is read from the file, or from the environment:
    ESX_KAFKA_SASL_PASSWORD is sasl.password. What the relay's promises need cannot be set (acks, idempotence,
    transactional.id, partitioner). An event that Kafka refuses stops the relay after all events before it; with
    --on-error park, `esx relay parked|retry|skip NAME` handle what was put aside.

    With --json, a line a second and at the end: position and sent.
    """
    if partitions is not None and not create_topics:
        raise click.UsageError("--partitions belongs to --create-topics")
    from esx.relay.cloudevents import MessageFormat
    from esx.relay.kafka import KafkaTarget
    from esx.relay.kafka_settings import BadSettings, gather, read_properties

    try:
        in_file: dict[str, str] = {}
        if config is not None:
            in_file, warning = read_properties(config)
            if warning is not None:
                narrate(warning)
        target = KafkaTarget(
            gather(settings, in_file, os.environ, brokers),
            topic,
            exactly_once=delivery == "exactly-once",
            message_format=MessageFormat(message_format),
            create_partitions=(partitions or -1) if create_topics else None,
            source=source,
            on_mapped=_say_mapped,
        )
    except BadSettings as error:
        raise click.UsageError(str(error)) from None

    async def work(store: EventStore) -> None:
        from esx.cli.relay.running import run_relay

        await run_relay(store, target, RelayOptions(**common))

    with_store(dsn, work)


def _say_mapped(category: str, topic: str) -> None:
    narrate(f"category {visible(category, limit=100)} is no name of a topic: its events go to {topic}")

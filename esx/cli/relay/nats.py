"""esx relay nats."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from esx.cli.opening import with_store
from esx.cli.output import narrate
from esx.cli.relay.options import RelayOptions, body_format_option, relay_options
from esx.text import visible

if TYPE_CHECKING:
    from esx.eventstore import EventStore

_LOGIN = ("user", "password", "token")


@click.command(name="nats")
@click.option(
    "-s",
    "--servers",
    default="nats://localhost:4222",
    show_default=True,
    metavar="URL",
    help="The server, or several with commas between; tls://HOST:PORT with TLS.",
)
@click.option(
    "--subject",
    required=True,
    metavar="TEMPLATE",
    help="The subject; {category} is the part of the stream's id before the first '-', as in 'events.{category}'.",
)
@body_format_option
@relay_options("nats")
def command(
    dsn: str | None,
    servers: str,
    subject: str,
    message_format: str,
    source: str | None,
    **common: Any,
) -> None:
    """Send events to subjects of NATS that streams of JetStream take, until it is ended.

    At least once: after a crash at most 10,000 events come again. Nats-Msg-Id is the event's id, by which JetStream
    drops what comes again within the duplicate window of its stream (two minutes by default). At most one event of each
    stream of events is under way, so that their order holds.

    The login comes from the environment: ESX_NATS_USER and ESX_NATS_PASSWORD, or ESX_NATS_TOKEN.
    """
    from esx.relay.cloudevents import MessageFormat
    from esx.relay.nats import NatsTarget

    login = {name: os.environ.get(f"ESX_NATS_{name.upper()}") for name in _LOGIN}
    target = NatsTarget(
        servers,
        subject,
        login={name: value for name, value in login.items() if value},
        message_format=MessageFormat(message_format),
        source=source,
        on_mapped=_say_mapped,
    )

    async def work(store: EventStore) -> None:
        from esx.cli.relay.running import run_relay

        await run_relay(store, target, RelayOptions(**common))

    with_store(dsn, work)


def _say_mapped(category: str, subject: str) -> None:
    narrate(f"category {visible(category, limit=100)} is no part of a subject: its events go to {subject}")

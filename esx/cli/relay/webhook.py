"""esx relay webhook."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from esx.cli.opening import with_store
from esx.cli.output import narrate
from esx.cli.relay.options import RelayOptions, relay_options

if TYPE_CHECKING:
    from esx.eventstore import EventStore

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@click.command(name="webhook")
@click.argument("url")
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="At most so many events in a request.",
)
@relay_options("webhook")
def command(
    dsn: str | None,
    url: str,
    batch: int,
    source: str | None,
    **common: Any,
) -> None:
    """Post events to URL as batches of CloudEvents, in their order, until it is ended.

    At least once: after a crash the last request may come again; the events' ids tell. 408, 425, 429 and 5xx are tried
    again, with growing pauses. An event that is refused (400, 409, 413, 415, 422) stops the relay after all events
    before it, or is parked.

    Secrets come from the environment: ESX_WEBHOOK_SECRET signs requests, as Standard Webhooks says;
    ESX_WEBHOOK_AUTHORIZATION is sent as the header Authorization.
    """
    from esx.relay.webhook import WebhookTarget

    authorization = os.environ.get("ESX_WEBHOOK_AUTHORIZATION")
    target = WebhookTarget(
        url,
        secret=os.environ.get("ESX_WEBHOOK_SECRET"),
        headers=None if authorization is None else {"Authorization": authorization},
        batch=batch,
        source=source,
    )
    if url.startswith("http:") and urlsplit(url).hostname not in _LOOPBACK:
        narrate(f"{target.where} is not encrypted: others may read and change what is sent; use https")

    async def work(store: EventStore) -> None:
        from esx.cli.relay.running import run_relay

        await run_relay(store, target, RelayOptions(**common), window=batch)

    with_store(dsn, work)

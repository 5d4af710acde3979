"""esx relay webhook."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from esx.cli.opening import with_store
from esx.cli.options import as_relay_start, database_option, filter_options, json_option, partial_option
from esx.cli.output import narrate

if TYPE_CHECKING:
    from datetime import datetime

    from esx.eventstore import EventStore

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@click.command(name="webhook")
@click.argument("url")
@click.option(
    "--name", default="webhook", show_default=True, help="The relay's name, under which its position is kept."
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="At most so many events in a request.",
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
    help="At an event that is refused: stop, or put it and the later ones of its stream aside and go on.",
)
@click.option("--once", is_flag=True, help="End at the safe position.")
@json_option
@partial_option
@database_option
def command(
    dsn: str | None,
    url: str,
    name: str,
    batch: int,
    source: str | None,
    stream: str | None,
    event_type: str | None,
    where: str | None,
    start: int | datetime | str | None,
    on_error: str,
    once: bool,
    as_json: bool,
) -> None:
    """Post events to URL as batches of CloudEvents, in their order, until it is ended.

    At least once: after a crash the last request may come again; the events' ids tell. 408, 425, 429 and 5xx are tried
    again, with growing pauses. An event that is refused (400, 409, 413, 415, 422) stops the relay after all events
    before it, or is parked.

    Secrets come from the environment: ESX_WEBHOOK_SECRET signs requests, as Standard Webhooks says;
    ESX_WEBHOOK_AUTHORIZATION is sent as the header Authorization.
    """
    from esx.filters import Filter
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

        chosen = Filter(stream, event_type, where)
        await run_relay(
            store, name, target, chosen, start=start, on_error=on_error, once=once, as_json=as_json, window=batch
        )

    with_store(dsn, work)

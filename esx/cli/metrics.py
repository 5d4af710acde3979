"""esx metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from esx.cli.opening import with_store
from esx.cli.options import as_seconds, database_option
from esx.cli.output import narrate

if TYPE_CHECKING:
    from esx.eventstore import EventStore


@click.command(name="metrics")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9187, show_default=True, help="0 takes one that is free."
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The address to listen on.")
@click.option(
    "--categories",
    type=click.IntRange(0, 1000),
    default=50,
    show_default=True,
    metavar="N",
    help="How many categories are counted by name; the others count together.",
)
@click.option(
    "--doctor-every",
    default="5m",
    callback=as_seconds,
    metavar="T",
    show_default=True,
    help="How often the doctor looks; 0: never.",
)
@click.option(
    "--timeout",
    default="10s",
    callback=as_seconds,
    metavar="T",
    show_default=True,
    help="How long one measurement may take.",
)
@database_option
def command(dsn: str | None, port: int, host: str, categories: int, doctor_every: float, timeout: float) -> None:
    """Serve the state of the store and its consumers to Prometheus, at /metrics, as OpenMetrics.

    Head, safe position, lag of each consumer in events and seconds, appends by category, sizes, the notification queue,
    and the doctor's findings by severity. It only reads. Only this machine can reach it, unless --host says otherwise:
    then everybody who reaches the port can read these figures, and the names of consumers and categories.
    """
    try:
        from esx.metrics.figures import Observer
        from esx.metrics.server import run_exporter
    except ImportError as error:
        raise click.ClickException(
            f"{error.name} is not installed, which this needs: pip install 'esx-eventstore[metrics]'"
        ) from error
    from esx.web.guard import address_of, is_loopback

    if not is_loopback(host):
        narrate(f"warning: everybody who reaches {host} port {port} can read these figures")

    def started(address: str, number: int) -> None:
        narrate(f"metrics are at http://{address_of(address, number)}/metrics  (Ctrl-C ends it)")

    async def work(store: EventStore) -> None:
        observer = Observer(store, categories=categories, doctor_every=doctor_every)
        await run_exporter(observer, host=host, port=port, timeout=timeout, started=started, told=narrate)

    with_store(dsn, work, read_only=True, retry_for=timeout)

"""esx project run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from esx.cli.opening import with_store
from esx.cli.options import database_option, filter_options
from esx.cli.output import narrate
from esx.cli.project.handlers import handler_of

if TYPE_CHECKING:
    from esx.eventstore import EventStore


class _Narrated(logging.Handler):
    """Prints what a projection logs, such as that it tries again."""

    def emit(self, record: logging.LogRecord) -> None:
        narrate(record.getMessage())


@click.command(name="run")
@click.argument("handler", metavar="MODULE:FUNCTION")
@click.option("--name", required=True, help="The projection's name, under which its position is kept.")
@click.option("--batch", is_flag=True, help="The function takes a list of events, not one.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    metavar="N",
    help="At most so many events in one transaction.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "park", "skip"]),
    default="stop",
    show_default=True,
    help="What to do at an event that fails: end, put it and the later ones of its stream aside, or leave it out.",
)
@filter_options
@database_option
def command(
    dsn: str | None,
    handler: str,
    name: str,
    batch: bool,
    batch_size: int,
    on_error: Any,
    stream: str | None,
    event_type: str | None,
    where: str | None,
) -> None:
    """Keep a read model up to date with `await FUNCTION(connection, event)`, until it is ended.

    What the function writes through the connection, which is asyncpg's, is committed together with the position: each
    event counts once, in order. Only one instance of a name is active; others wait and take over. MODULE is looked for
    in the current directory and on Python's path.

    `esx consumers parked NAME` lists what was put aside, `esx consumers retry NAME` tries it again.
    """
    function = handler_of(handler, batch=batch)
    log = logging.getLogger("esx.projection")
    log.addHandler(_Narrated())
    log.propagate = False

    async def work(store: EventStore) -> None:
        from esx.errors import UnknownConsumer

        try:
            report = await store.consumer(name)
            where_from = f"goes on after {report.position}"
            if report.paused:
                where_from += f", and is paused: esx consumers resume {name}"
            elif report.runner is not None:
                where_from = f"waits: {report.runner} runs it now"
        except UnknownConsumer:
            where_from = "begins at the start"
        narrate(f"projection {name} {where_from}  (Ctrl-C ends it)")
        run = store.project_batches if batch else store.project
        await run(
            name, function, stream=stream, event_type=event_type, where=where, batch=batch_size, on_error=on_error
        )

    with_store(dsn, work)

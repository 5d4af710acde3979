"""esx serve."""

from __future__ import annotations

import os
import shlex
import sys

import click

from esx.cli.common import database, database_option, narrate, run
from esx.cli.storename import named_store


@click.command(name="serve")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes one that is free."
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The address to listen on.")
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Let other machines in. Nobody is asked for a password: whoever reaches the port reads the store, as you.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in your browser.")
@database_option
def command(dsn: str | None, port: int, host: str, allow_remote: bool, open_page: bool) -> None:
    """Show the explorer in a browser.

    Each page runs an explorer of its own. Only this machine can reach it, unless --host says otherwise, and only
    pages of its own address may use it; there is no password.
    """
    from esx.web import is_loopback, serve

    if not is_loopback(host):
        if not allow_remote:
            raise click.UsageError(
                f"--host {host} lets other machines read the store without a password: "
                "use 127.0.0.1 and an ssh tunnel, or confirm with --allow-remote"
            )
        narrate(f"warning: whoever reaches {host} port {port} can read the store as you; there is no password")

    def started(url: str) -> None:
        narrate(f"the explorer is at {url}  (Ctrl-C ends it)")
        if open_page:
            click.launch(url)

    with database(dsn) as opened:
        # By the environment, which only you can read: a command line is there for everybody.
        if opened.embedded:
            os.environ["ESX_DSN"] = "embedded"
        elif opened.name is not None:
            os.environ["ESX_DSN"] = opened.name
        elif opened.source == "--dsn" and opened.dsn is not None:
            os.environ["ESX_DSN"] = opened.dsn
        # -P: nothing in the working directory takes the place of a module.
        store = [] if named_store() is None else ["--store", opened.store or ""]
        explorer = shlex.join([sys.executable, "-P", "-m", "esx", *store])
        run(serve(f"exec {explorer}", host=host, port=port, started=started))

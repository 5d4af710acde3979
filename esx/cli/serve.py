"""esx serve."""

from __future__ import annotations

import os
import sys

import click

from esx.cli.common import config, database, database_option, narrate, run
from esx.cli.storename import named_store
from esx.text import visible


@click.command(name="serve")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes one that is free."
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The address to listen on.")
@click.option(
    "--public-name",
    "public",
    multiple=True,
    metavar="NAME",
    help="A name by which browsers reach it through a proxy, with its port unless that is the usual one. Repeatable.",
)
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Let other machines in. Whoever has the address with its token reads the store, as you.",
)
@click.option(
    "--allow-load", is_flag=True, help="Let pages run load tests, which write, on the database that is shown."
)
@click.option("--allow-export", is_flag=True, help="Let pages export what they show, to a file of the browser.")
@click.option(
    "--allow-reducer", is_flag=True, help="Fold streams with the reducer of the config file, which is Python code."
)
@click.option(
    "--allow-connections", is_flag=True, help="Let pages show every other database of the config file, as you."
)
@click.option(
    "--max-sessions", type=click.IntRange(1), default=10, show_default=True, help="How many pages may be open at once."
)
@click.option(
    "--max-memory",
    type=click.IntRange(50),
    default=1024,
    show_default=True,
    metavar="MB",
    help="How much memory the explorer of one page may take (one needs about 100); one that takes more is ended.",
)
@click.option(
    "--idle-timeout",
    type=click.FloatRange(0),
    default=43200,
    show_default="12 hours",
    metavar="SECONDS",
    help="End a page in which no key was pressed and the mouse not moved for so long; 0 never.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in your browser.")
@database_option
def command(
    dsn: str | None,
    port: int,
    host: str,
    public: tuple[str, ...],
    allow_remote: bool,
    allow_load: bool,
    allow_export: bool,
    allow_reducer: bool,
    allow_connections: bool,
    max_sessions: int,
    max_memory: int,
    idle_timeout: float,
    open_page: bool,
) -> None:
    """Show the explorer in a browser.

    Each page runs an explorer of its own, which only reads, and only this database; the --allow options let it do
    more. Only this machine can reach it, unless --host says otherwise, and only a browser that was given the address
    with the token in it may use it. $ESX_WEB_TOKEN is a token of your own.
    """
    from esx.permissions import VARIABLE as SERVED
    from esx.permissions import Permissions
    from esx.web.guard import VARIABLE as TOKEN
    from esx.web.guard import BadToken, is_loopback, token_of
    from esx.web.server import Bounds, serve

    try:
        token = token_of(os.environ)
    except BadToken as error:
        raise click.UsageError(str(error)) from None
    if not is_loopback(host):
        if not allow_remote:
            raise click.UsageError(
                f"--host {host} lets other machines read the store, if they have the token, over a connection that "
                "others can listen to: use 127.0.0.1 and an ssh tunnel, or confirm with --allow-remote"
            )
        narrate(
            f"warning: whoever has the token and reaches {host} port {port} can read the store as you; "
            "without a proxy that adds TLS, whoever listens on the way reads the token too"
        )
    allowed = {
        "load": allow_load,
        "export": allow_export,
        "reducer": allow_reducer,
        "connections": allow_connections,
    }
    if config().reducer is not None and not allow_reducer:
        narrate(f"pages fold by JSON merge: --allow-reducer lets them run {visible(config().reducer or '', limit=100)}")

    def started(url: str) -> None:
        narrate(f"the explorer is at {url}  (Ctrl-C ends it)")
        for name in public:
            narrate(f"through the proxy it is at https://{visible(name, limit=200)}/?token={token}")
        if open_page:
            click.launch(url)

    with database(dsn, writing=allow_load) as opened:
        if opened.embedded:
            from esx.cli.explore import prepare

            run(prepare(opened))
        environ = {name: value for name, value in os.environ.items() if name != TOKEN}
        environ[SERVED] = str(Permissions.only(*(name for name, on in allowed.items() if on)))
        # By the environment, which only you can read: a command line is there for everybody.
        if opened.embedded:
            environ["ESX_DSN"] = "embedded"
        elif opened.name is not None:
            environ["ESX_DSN"] = opened.name
        elif opened.source == "--dsn" and opened.dsn is not None:
            environ["ESX_DSN"] = opened.dsn
        # -P: nothing in the working directory takes the place of a module.
        store = [] if named_store() is None else ["--store", opened.store or ""]
        trust = ["--trust-owner"] if opened.trust_owner else []
        run(
            serve(
                [sys.executable, "-P", "-m", "esx", *store, *trust],
                environ,
                host=host,
                port=port,
                token=token,
                public=public,
                bounds=Bounds(max_sessions, idle_timeout, max_memory * 2**20),
                started=started,
                told=narrate,
            )
        )

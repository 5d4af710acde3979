"""esx serve."""

import os
import sys

import click

from esx.cli.opening import config, database
from esx.cli.options import database_option, named_store
from esx.cli.output import narrate
from esx.cli.running import run
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
    help="Let other machines in. Every user who has the address with its token reads the store, as you.",
)
@click.option(
    "--allow-load", is_flag=True, help="Let pages run load tests, which write, on the database that is shown."
)
@click.option("--allow-export", is_flag=True, help="Let pages export what they show, to a file of the browser.")
@click.option(
    "--allow-reducer", is_flag=True, help="Use the reducer and the decoder of the config file, which are Python code."
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
    help="End a page in which no key was pressed and the mouse not moved for this long; 0: never.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in your browser.")
@database_option
def command(
    dsn: str | None,
    port: int,
    host: str,
    public: tuple[str, ...],
    allow_remote: bool,
    max_sessions: int,
    max_memory: int,
    idle_timeout: float,
    open_page: bool,
    **allowed: bool,
) -> None:
    """Show the explorer in a browser.

    Each page runs an explorer of its own, which only reads, and only this database; the --allow options let it do
    more. Only this machine can reach it, unless --host says otherwise, and only a browser that was given the address
    with its token may use it. $ESX_WEB_TOKEN sets the token.
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
            f"warning: every user who has the token and reaches {host} port {port} can read the store as you; "
            "without a proxy that adds TLS, the token can be read on the way"
        )
    for code, without in ((config().reducer, "fold by JSON merge"), (config().decoder, "use no decoder of yours")):
        if code is not None and not allowed["allow_reducer"]:
            narrate(f"pages {without}: --allow-reducer lets them run {visible(code, limit=100)}")

    def started(url: str) -> None:
        narrate(f"the explorer is at {url}  (Ctrl-C ends it)")
        for name in public:
            narrate(f"through the proxy it is at https://{visible(name, limit=200)}/?token={token}")
        if open_page:
            click.launch(url)

    with database(dsn, writing=allowed["allow_load"]) as opened:
        if opened.embedded:
            from esx.cli.explore import prepare

            run(prepare(opened))
        environ = {name: value for name, value in os.environ.items() if name != TOKEN}
        environ[SERVED] = str(Permissions.only(*(name.removeprefix("allow_") for name, on in allowed.items() if on)))
        # In the environment, which only you can read; every user of the machine can read a command line.
        if opened.embedded:
            environ["ESX_DSN"] = "embedded"
        elif opened.name is not None:
            environ["ESX_DSN"] = opened.name
        elif opened.source == "--dsn" and opened.dsn is not None:
            environ["ESX_DSN"] = opened.dsn
        # -P: no file in the working directory takes the place of a module.
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

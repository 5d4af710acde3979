"""What the commands share: the database option, opening the store, and printing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import click

from esx.cli.ending import ASKED, ended_by
from esx.cli.storename import named_store, store_option, trusts_owner
from esx.text import encodable, visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
    from types import TracebackType

    from esx.cli.ending import Ending
    from esx.config import Config
    from esx.database import Database
    from esx.store import EventStore

T = TypeVar("T")
Command = TypeVar("Command", bound="Callable[..., Any]")
_BETWEEN_REPORTS = 0.1  # seconds


DSN_HELP = "The database: a connection of the config file, a URL, libpq's key=value form, or a database name."


@lru_cache(maxsize=1)
def config() -> Config:
    """Return what the config file says, and show times as it wants them from now on."""
    from esx.config import load
    from esx.times import show_times_in

    found = load(os.environ)
    show_times_in(found.zone)
    return found


def database_option(command: Command) -> Command:
    """Add -d/--dsn, which the command receives as `dsn`; one before the command's name holds as well."""

    def inherit(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
        above = ctx.parent
        while value is None and above is not None:
            value, above = above.params.get("dsn"), above.parent
        return value

    return click.option(
        "-d",
        "--dsn",
        metavar="URL|NAME",
        callback=inherit,
        help=DSN_HELP,
    )(store_option(command))


def json_option(command: Command) -> Command:
    """Add --json, which the command receives as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print NDJSON: one object a line.")(command)


def filter_options(command: Command) -> Command:
    """Add --stream, --type and --where, which the command receives as `stream`, `event_type` and `where`."""
    for option in (
        click.option(
            "--where",
            metavar="JSONPATH",
            help="Only events for which the path holds or finds something in data ($metadata is the metadata).",
        ),
        click.option("--type", "event_type", metavar="GLOB", help="Only events of matching types."),
        click.option("--stream", metavar="GLOB", help="Only events of matching streams."),
    ):
        command = option(command)
    return command


def no_such_stream(stream: str) -> click.ClickException:
    """Return the error for a stream without events, with how to find the one that was meant."""
    shown = visible(stream, limit=200)
    if stream == "all":
        return click.ClickException("stream all has no events; all streams are '$all'")
    glob = shown if set(stream) & set("*?[") else f"*{shown}*"
    return click.ClickException(
        f"stream {shown} has no events; `esx streams --match '{glob}'` may find the one you mean"
    )


def narrate(text: str) -> None:
    """Say something to the person at the terminal, on stderr: stdout is data."""
    click.echo(visible(text), err=True)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C cancels it and surfaces as KeyboardInterrupt, SIGTERM as SystemExit."""
    endings: list[Ending] = []

    async def inside() -> T:
        task = asyncio.current_task()
        assert task is not None
        with ended_by(task.cancel, ASKED) as ending:
            endings.append(ending)
            return await coroutine

    try:
        return asyncio.run(inside())
    except asyncio.CancelledError:
        if endings and endings[0].number is not None:
            endings[0].leave()
        raise


@contextlib.contextmanager
def database(dsn: str | None, *, writing: bool = False) -> Iterator[Database]:
    """Open the database that is meant, starting the embedded PostgreSQL if none is configured.

    Raises ClickException for `writing`, as a load test does, to a connection that is configured as read-only or to
    another store than events.
    """
    from esx.database import open_database

    with open_database(dsn, os.environ, config(), on_progress=progress()) as chosen:
        for warning in chosen.warnings:
            narrate(warning)
        opened = replace(chosen, store=named_store() or chosen.store, trust_owner=trusts_owner() or chosen.trust_owner)
        if writing and opened.read_only:
            raise click.ClickException(
                f"connection {opened.name} is read_only: name another, or change that in {visible(str(config().path))}"
            )
        if writing and opened.store is not None:
            raise click.ClickException(
                f"a load test goes to the table events that search_path finds, not to {visible(opened.store)}: leave "
                "the store out, and name a schema in the address: ?search_path=..."
            )
        yield opened


def progress() -> Callable[[str], None] | None:
    """Return where to report progress to: stderr if a person is there, else nowhere."""
    return narrate if sys.stderr.isatty() else None


@contextlib.asynccontextmanager
async def store_on(opened: Database, **options: Any) -> AsyncIterator[EventStore]:
    """Connect to the store. The embedded one, which is esx's own, gets its tables by itself."""
    from esx.store import EventStore, SchemaMissing

    if opened.read_only:
        options["read_only"] = True
    async with EventStore.connect(
        opened.dsn,
        statement_timeout=opened.statement_timeout,
        store=opened.store,
        trust_owner=opened.trust_owner,
        **options,
    ) as store:
        if opened.store is not None:
            # What is not there the command itself will meet, and the doctor has more to say of it.
            with contextlib.suppress(SchemaMissing):
                if warning := await store.warning():
                    narrate(warning)
        if opened.embedded and opened.store is None and not await store.has_schema():
            # The session at hand may be one that only reads.
            async with EventStore.connect(opened.dsn) as writable:
                await writable.init()
        yield store


def with_store(dsn: str | None, work: Callable[[EventStore], Coroutine[Any, Any, T]], **options: Any) -> T:
    """Run `work` on the store that is meant and return its result.

    Says so where that is the embedded one because none was named, before it is written to and after an error.
    """

    async def inside(opened: Database) -> T:
        async with store_on(opened, application_name="esx", **options) as store:
            return await work(store)

    with database(dsn) as opened:
        by_default = f"in {opened.label}, as no database is named" if opened.source == "embedded" else None
        if by_default and not options.get("read_only"):
            narrate(by_default)
        try:
            return run(inside(opened))
        except click.ClickException:
            if by_default and options.get("read_only"):
                narrate(by_default)
            raise


class ProgressLine:
    """Shows how far the work has come, on one line of the terminal that goes away at the end."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._next = 0.0
        self._dirty = False

    def __call__(self, text: str) -> None:
        """Show how far it is, if it is time to."""
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + _BETWEEN_REPORTS
            self._dirty = True
            click.echo(f"\r\x1b[K{visible(text)}", err=True, nl=False)

    def clear(self) -> None:
        """Make room for what is printed next."""
        if self._dirty:
            self._dirty = False
            click.echo("\r\x1b[K", err=True, nl=False)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()


class Lines:
    """Prints lines of data to stdout.

    JSON keeps every character when stdout is a file or a pipe. On a terminal, control and reordering characters
    inside its strings are escaped (``\\u009b``): the same JSON, and nothing that the terminal would obey.
    """

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()

    def json(self, line: str) -> None:
        """Print a line of JSON."""
        line = encodable(line)
        sys.stdout.write((_escape(line) if self._terminal else line) + "\n")

    def ndjson(self, piece: bytes) -> None:
        """Print whole lines of JSON that are bytes already."""
        if self._terminal:
            for line in piece.decode().removesuffix("\n").split("\n"):
                self.json(line)
        else:
            sys.stdout.buffer.write(piece)

    def text(self, line: str) -> None:
        """Print a line for people; anything that a terminal would obey is shown instead."""
        sys.stdout.write(visible(line) + "\n")

    def flush(self) -> None:
        """Hand over to the reader what has been printed."""
        sys.stdout.flush()


def _escape(line: str) -> str:
    if line.isascii():
        return line.replace("\x7f", "\\u007f")
    return "".join(
        char if visible(char) == char else "".join(f"\\u{unit:04x}" for unit in _utf16(char)) for char in line
    )


def _utf16(char: str) -> Iterable[int]:
    data = char.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))

"""Opening the database, the store, the reducer and the decoder that a command is to use."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import click

from esx.cli.options import named_store, trusts_owner
from esx.cli.output import narrate, progress
from esx.cli.running import run
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from esx.config import Config
    from esx.database_choice import Database
    from esx.eventstore import EventStore
    from esx.fold.reducer import Reducer
    from esx.payloads.decoder import Decoder

T = TypeVar("T")


@lru_cache(maxsize=1)
def config() -> Config:
    """Return what the config file says, and show times in its time zone from now on."""
    from esx.config import load
    from esx.times import show_times_in

    found = load(os.environ)
    show_times_in(found.zone)
    return found


@contextlib.contextmanager
def database(dsn: str | None, *, writing: bool = False, appender: bool = False) -> Iterator[Database]:
    """Open the database that is meant, starting the embedded PostgreSQL if none is configured.

    With `writing`, as for a load test, raises ClickException for a connection that is configured as read-only, and for
    another store than events, unless an `appender` for it is named.
    """
    from esx.database_choice import open_database

    with open_database(dsn, os.environ, config(), on_progress=progress()) as chosen:
        for warning in chosen.warnings:
            narrate(warning)
        opened = replace(chosen, store=named_store() or chosen.store, trust_owner=trusts_owner() or chosen.trust_owner)
        if writing and opened.read_only:
            raise click.ClickException(
                f"connection {opened.name} is read_only: name another, or change that in {visible(str(config().path))}"
            )
        if writing and opened.store is not None and not appender:
            raise click.ClickException(
                f"a load test goes to the table events that search_path finds, not to {visible(opened.store)}: name a "
                "schema in the address, ?search_path=..., or how another store appends, --appender or --append-sql"
            )
        yield opened


@contextlib.asynccontextmanager
async def store_on(opened: Database, **options: Any) -> AsyncIterator[EventStore]:
    """Connect to the store. The tables of the embedded one are made if there are none."""
    from esx.errors import SchemaMissing
    from esx.eventstore import EventStore

    if opened.read_only:
        options["read_only"] = True
    async with EventStore.connect(
        opened.dsn,
        statement_timeout=opened.statement_timeout,
        store=opened.store,
        trust_owner=opened.trust_owner,
        layouts=config().layouts,
        **options,
    ) as store:
        if options.get("read_only"):
            store.tell = narrate
        if opened.store is not None:
            # The command itself fails where the table is missing, and the doctor has more to say about it.
            with contextlib.suppress(SchemaMissing):
                if warning := await store.warning():
                    narrate(warning)
        if opened.embedded and opened.store is None and not await store.has_schema() and await store.beside() is None:
            # `store` may be read-only.
            async with EventStore.connect(opened.dsn) as writable:
                await writable.init()
        yield store


def with_store(dsn: str | None, work: Callable[[EventStore], Coroutine[Any, Any, T]], **options: Any) -> T:
    """Run `work` on the store that is meant and return its result.

    Where that is the embedded one because no database is named, says so: before it is written to, and after an error.
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


def reducer_of(text: str | None) -> Reducer:
    """Return the reducer named by `text`, else by the config file, else JSON merge.

    Raises UsageError if it cannot be loaded.
    """
    from esx.fold.reducer import MERGE, ReducerFailed, load_reducer

    text = text or config().reducer
    if text is None:
        return MERGE
    try:
        return load_reducer(text)
    except ReducerFailed as error:
        raise click.UsageError(str(error)) from error


def decoder_of(text: str | None) -> Decoder | None:
    """Return the decoder named by `text`, else by the config file, else None.

    Raises UsageError if it cannot be loaded.
    """
    text = text or config().decoder
    if text is None:
        return None
    from esx.payloads.decoder import DecoderFailed, load_decoder

    try:
        return load_decoder(text)
    except DecoderFailed as error:
        raise click.UsageError(str(error)) from error

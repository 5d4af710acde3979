"""An append that is repeated after a lost connection, and refused then for a reason of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import NO_STREAM, EventStore, NewEvent, NotAllowed, OutcomeUnknown, StreamAppend, WrongVersion
from tests.support.proxy import proxied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Append = Callable[[EventStore, list[NewEvent]], Awaitable[object]]

# With what tells the message by which it is stored.
pytestmark = pytest.mark.parametrize(
    ("append", "about"),
    [
        pytest.param(lambda store, events: store.append("s", events, expected=NO_STREAM), b"", id="one stream"),
        pytest.param(
            lambda store, events: store.append_to_streams([StreamAppend("s", events, NO_STREAM)]),
            b"COMMIT",
            id="several",
        ),
    ],
)


async def take_no_writes(sql: asyncpg.Connection) -> None:
    """Let sessions that begin from now on read only, as those of a standby do."""
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")


async def test_a_refusal_of_the_repeat_does_not_hide_that_the_first_attempt_may_be_stored(
    dsn18: str, sql18: asyncpg.Connection, tmp_path: Path, append: Append, about: bytes
) -> None:
    async with proxied(dsn18, tmp_path) as (proxy, address), EventStore.connect(address, max_connections=1) as store:
        await store.append("warm", [NewEvent("T")])
        await take_no_writes(sql18)
        proxy.about, proxy.cut = about, "before the reply"
        with pytest.raises(OutcomeUnknown, match="read-only transaction; whether the append was stored is not known"):
            await append(store, [NewEvent("T")])
        assert proxy.losses == 1
    assert await sql18.fetchval("SELECT count(*) FROM events WHERE stream_id = 's'") == 1


async def test_a_refusal_without_a_lost_attempt_says_that_nothing_is_stored(
    dsn18: str, sql18: asyncpg.Connection, append: Append, about: bytes
) -> None:
    await take_no_writes(sql18)
    async with EventStore.connect(dsn18) as store:
        with pytest.raises(NotAllowed):
            await append(store, [NewEvent("T")])
    assert await sql18.fetchval("SELECT count(*) FROM events") == 0


async def test_a_repeat_that_finds_the_stream_elsewhere_says_so(
    dsn18: str, tmp_path: Path, append: Append, about: bytes
) -> None:
    """That is an answer: the first attempt would have been recognised."""
    async with proxied(dsn18, tmp_path) as (proxy, address), EventStore.connect(address) as store:
        await store.append("s", [NewEvent("T")])
        proxy.cut = "before the reply"
        with pytest.raises(WrongVersion):
            await append(store, [NewEvent("T")])
        assert proxy.losses == 1

"""Transactions that serve what is read at once: how long they last, and what they leave behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx.errors import InvalidQuery
from esx.postgres.connection import Connector
from esx.postgres.pool import Pool
from esx.postgres.timings import Timings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esx.postgres.session import Session

_DEADLINE = 120.0


def new_readers(dsn: str, timings: Timings) -> Pool:
    connector = Connector(dsn, "test")

    async def another() -> Session:
        return await connector.open(settings={"default_transaction_read_only": "on"})

    return Pool(another, 1, "here", read_only=True, timings=timings)


@pytest.fixture
async def readers(dsn18: str) -> AsyncIterator[Pool]:
    pool = new_readers(dsn18, Timings())
    yield pool
    pool.terminate()


async def begun(readers: Pool) -> object:
    """Return what tells one transaction from another."""
    async with readers.lend() as connection:
        return await connection.fetchval("SELECT pg_catalog.now()")


@pytest.mark.parametrize(("longest", "same"), [(3600.0, True), (0.0, False)])
async def test_what_is_read_on_and_on_is_not_in_one_transaction_for_ever(
    dsn18: str, longest: float, same: bool
) -> None:
    """It would keep vacuum from its work, and would see a change of settings never."""
    readers = new_readers(dsn18, Timings(group=longest))
    first = await begun(readers)
    assert (await begun(readers) == first) is same
    readers.terminate()


async def test_a_transaction_that_nobody_goes_on_with_ends(readers: Pool, dsn18: str) -> None:
    async with readers.lend() as connection:
        pid = connection.get_server_pid()
    other = await asyncpg.connect(dsn18)
    async with asyncio.timeout(_DEADLINE):
        while await other.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", pid) != "idle":
            await asyncio.sleep(0.01)
    await other.close()
    async with readers.lend() as connection:
        assert connection.get_server_pid() == pid


async def test_a_transaction_in_which_something_failed_is_used_no_more(readers: Pool) -> None:
    for _ in range(2):
        with pytest.raises(InvalidQuery):
            async with readers.lend() as connection:
                pid = connection.get_server_pid()
                await connection.fetchval("SELECT 1 / 0")
    async with readers.lend() as connection:
        assert connection.get_server_pid() == pid
        assert await connection.fetchval("SELECT 1") == 1


async def test_it_is_read_only_even_where_somebodys_code_has_changed_the_session(dsn18: str) -> None:
    readers = new_readers(dsn18, Timings(group=0.0))
    async with readers.lend() as connection:
        await connection.execute("SELECT pg_catalog.set_config('default_transaction_read_only', 'off', false)")
    async with readers.lend() as connection:
        assert await connection.fetchval("SELECT pg_catalog.current_setting('default_transaction_read_only')") == "off"
        assert await connection.fetchval("SELECT pg_catalog.current_setting('transaction_read_only')") == "on"
    readers.terminate()


async def test_what_has_failed_is_begun_anew_only_where_nothing_of_others_is_open(readers: Pool) -> None:
    """What was done in an inner transaction would be gone, and nobody told."""
    async with readers.lend() as connection:
        async with connection.transaction():
            assert not await connection.recover()
            assert connection.is_in_transaction()
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetchval("SELECT 1 / 0")
        assert await connection.recover()
        assert await connection.fetchval("SELECT pg_catalog.current_setting('search_path')") == ""
        assert await connection.fetchval("SELECT pg_catalog.current_setting('transaction_read_only')") == "on"

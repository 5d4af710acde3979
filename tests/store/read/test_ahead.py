"""Reading one page ahead: what is read when, and how it ends with its reader."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING

import pytest

from esx import EventStore, NewEvent
from esx.store.read.ahead import read_ahead

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Pages:
    """Reads pages, each when it is allowed to."""

    def __init__(self, count: int, *, fails_at: int | None = None) -> None:
        self.began: list[int] = []
        self.closed = False
        self.open = asyncio.Event()
        self.open.set()
        self._count = count
        self._fails_at = fails_at

    async def read(self) -> AsyncGenerator[int, None]:
        try:
            for page in range(self._count):
                self.began.append(page)
                await self.open.wait()
                if page == self._fails_at:
                    raise LookupError(page)
                yield page
        finally:
            self.closed = True


async def passes() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_page_is_read_ahead_from_the_second_on() -> None:
    pages = Pages(5)
    async with contextlib.aclosing(read_ahead(pages.read())) as reader:
        for page, began in ((0, [0]), (1, [0, 1, 2]), (2, [0, 1, 2, 3])):
            assert await anext(reader) == page
            await passes()
            assert pages.began == began
    assert pages.closed
    assert [page async for page in read_ahead(Pages(5).read())] == [0, 1, 2, 3, 4]
    assert [page async for page in read_ahead(Pages(0).read())] == []


async def test_a_reader_that_ends_early_ends_what_is_read_ahead() -> None:
    pages = Pages(5)
    async with contextlib.aclosing(read_ahead(pages.read())) as reader:
        async for page in reader:
            if page == 1:
                pages.open.clear()  # the next page never comes
                await passes()
                break
    assert pages.began == [0, 1, 2]
    assert pages.closed
    assert [task for task in asyncio.all_tasks() if task.get_name() == "esx-read-ahead"] == []


async def test_a_page_ahead_that_fails_is_told_in_its_turn_and_only_there(caplog: pytest.LogCaptureFixture) -> None:
    seen = []
    with pytest.raises(LookupError):
        async for page in read_ahead(Pages(5, fails_at=2).read()):
            seen.append(page)
            await passes()
    assert seen == [0, 1]
    async with contextlib.aclosing(read_ahead(Pages(5, fails_at=2).read())) as reader:
        async for page in reader:
            if page == 1:
                await passes()
                break
    del reader
    gc.collect()
    await passes()
    assert caplog.text == ""  # asyncio logs an exception that nobody asks for


async def test_a_reader_may_use_its_store_with_a_single_connection(dsn18: str) -> None:
    async with EventStore.connect(dsn18, max_connections=1) as store, asyncio.timeout(60):
        for _ in range(3):
            await store.append("s", [NewEvent("T")] * 1000)
        count = 0
        async for event in store.read("s"):
            count += 1
            if event.stream_seq % 250 == 0:
                await store.append("other", [NewEvent("T")])
                assert await store.version("s") == 2999
        assert count == 3000
        async for event in store.read("s"):
            if event.stream_seq == 1500:
                break
        assert await store.version("other") == 11

"""Reads the next page while the caller works on the one before: the server and the client work at the same time."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def begin(reading: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Return the task of `reading`."""
    task = asyncio.create_task(reading, name="esx-read-ahead")
    task.add_done_callback(_ask)  # its caller may have ended before
    return task


async def begun(reading: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Return the task of `reading` when it has sent its query: its caller may not wait for anything until it ends."""
    task = begin(reading)
    try:
        for _ in range(2):  # the second time for the transport, which may write after the tasks have run
            await asyncio.sleep(0)
    except BaseException:
        task.cancel()
        raise
    return task


async def read_ahead(pages: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Yield pages, and from the second one on read one ahead; a caller that ends with the first reads no other."""
    reading: asyncio.Task[T | None] | None = None

    async def following() -> T | None:
        return await anext(pages, None)

    async with contextlib.aclosing(pages):
        try:
            page = await following()
            if page is not None:
                yield page
                page = await following()
            while page is not None:
                reading = await begun(following())
                yield page
                page = await reading
        finally:
            if reading is not None and not reading.done():
                reading.cancel()
                await asyncio.wait([reading])


def _ask(reading: asyncio.Task[T]) -> None:
    """Ask for the exception of a task, so that asyncio does not log that nobody did."""
    if not reading.cancelled():
        reading.exception()

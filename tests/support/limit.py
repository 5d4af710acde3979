"""A pytest plugin: a test that hangs ends after some minutes and shows where it stood, instead of keeping the suite.

A coroutine is cancelled. What else hangs, a fixture too, ends its process, of which pytest-xdist starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import inspect
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator

LIMIT = 240.0, 60.0
"""Seconds until a coroutine is cancelled, and then until the process ends; ``@pytest.mark.limit(...)`` sets others.

Several times what the slowest test takes on a busy machine."""
_stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    # The real one: what is captured would be lost with the process.
    config.stash[_stderr] = os.dup(2)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    with _process_ends(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    with _process_ends(item), pytest.MonkeyPatch.context() as patch:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            patch.setattr(item, "obj", limited(item.obj, _limit(item)[0]))
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    with _process_ends(item):
        return (yield)


def _limit(item: pytest.Item) -> tuple[float, float]:
    mark = item.get_closest_marker("limit")
    return (*mark.args, *LIMIT[len(mark.args) :]) if mark else LIMIT


@contextlib.contextmanager
def _process_ends(item: pytest.Item) -> Iterator[None]:
    """End the process after the limit, with the stacks of its threads on stderr."""
    faulthandler.dump_traceback_later(sum(_limit(item)), exit=True, file=item.config.stash[_stderr])
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def limited(test: Callable[..., Coroutine[Any, Any, None]], limit: float) -> Callable[..., Coroutine[Any, Any, None]]:
    """Let a coroutine function raise TimeoutError after `limit` seconds, with the stacks of all tasks on stderr."""

    @functools.wraps(test)
    async def run(*arguments: Any, **named: Any) -> None:
        shown = asyncio.get_running_loop().call_later(limit, _show_tasks)
        try:
            async with asyncio.timeout(limit):
                await test(*arguments, **named)
        finally:
            shown.cancel()

    return run


def _show_tasks() -> None:
    for task in asyncio.all_tasks():
        print(f"Task {task.get_name()}:", file=sys.stderr)
        awaited: Any = task.get_coro()
        # A task itself knows only its outermost frame while it waits.
        while frame := getattr(awaited, "cr_frame", None):
            traceback.print_stack(frame, limit=1)
            awaited = awaited.cr_await

"""asyncio inside a gevent program, such as Locust.

gevent replaces threads, sockets and locks by its own, with which asyncio does not work in the same thread. So the
event loop runs in a native thread, which gevent does not know, with uvloop if it is installed. A greenlet gives it a
coroutine and waits; only that greenlet blocks:

    bridge = AsyncioBridge()
    rows = bridge.run(connection.fetch("SELECT 1"))

Results come back through a deque and one watcher of the greenlets' hub, because no other way to wake a greenlet from
another thread is safe. Code in coroutines must not use gevent or Locust itself; `post` runs a function in a greenlet.
Connections and the like belong to the loop, and must be closed in a coroutine: one that is still open when a greenlet
drops it is closed in the wrong thread, which crashes uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import gevent
from gevent import monkey
from gevent.event import Event

T = TypeVar("T")

native_thread: Callable[[Callable[..., Any], tuple[Any, ...]], int] = monkey.get_original("_thread", "start_new_thread")
"""Starts a thread that gevent does not know."""
native_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
"""Lets such a thread wait."""
_CANCEL_LIMIT = 5.0

log = logging.getLogger(__name__)


class BridgeStopped(RuntimeError):
    """The bridge was stopped, or its event loop died, before the coroutine ended."""


class AsyncioBridge:
    """An asyncio event loop in a native thread, for greenlets.

    It starts by itself with the first `run`. Start it after a fork, not before; in a forked process it starts again.
    One bridge serves any number of greenlets of one hub.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._watcher: Any = None
        self._returns: deque[Callable[[], None]] = deque()
        self._jobs: set[_Job[Any]] = set()
        self._ready = Event()
        self._ended = Event()

    @property
    def running(self) -> bool:
        """Whether the event loop runs in this process."""
        return self._loop is not None and self._pid == os.getpid()

    def start(self) -> None:
        """Start the event loop's thread and wait until it runs. Does nothing if it runs already."""
        if self.running:
            self._ready.wait()
            return
        self._pid = os.getpid()
        self._returns = deque()
        self._jobs = set()
        self._ready, self._ended = Event(), Event()
        self._watcher = gevent.get_hub().loop.async_()
        self._watcher.start(self._deliver)
        self._loop = loop = _new_loop()
        loop.set_exception_handler(self._report)
        native_thread(self._main, (loop,))
        self._ready.wait()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` in the event loop and return its result, or raise what it raised.

        Only the calling greenlet waits. If it is killed, or a gevent timeout ends its waiting, the coroutine is
        cancelled and has up to 5 seconds to end. Raises BridgeStopped if the bridge stops first.
        """
        try:
            self.start()
            loop = self._loop
            assert loop is not None
            job = _Job(coroutine)
            self._jobs.add(job)
            loop.call_soon_threadsafe(self._launch, job)
        except BaseException:
            coroutine.close()
            raise
        try:
            job.ended.wait()
        except BaseException:
            self.call_soon(job.cancel)
            with gevent.Timeout(_CANCEL_LIMIT, False):
                job.ended.wait()
            raise
        finally:
            self._jobs.discard(job)
        return job.result()

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call `function` soon in a greenlet of its own. This is for coroutines, in the loop's thread."""
        self._return(lambda: gevent.spawn(function, *arguments))

    def call_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call `function` soon in the event loop's thread. This is for greenlets; ignored if the loop has stopped."""
        if self.running and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(function, *arguments)

    def stop(self, timeout: float = 5.0) -> bool:
        """Cancel all coroutines, end the event loop and its thread; return whether it ended within `timeout` seconds.

        Greenlets that still wait get BridgeStopped. A stopped bridge can be started again.
        """
        loop, ended = self._loop, self._ended
        if loop is None or not self.running:
            return True
        for job in self._jobs:
            job.abandoned = True
        self.call_soon(lambda: loop.create_task(self._finish(loop)))
        done = bool(ended.wait(timeout))
        if self._loop is loop:
            self._loop = None
            self._watcher.close()
        for job in list(self._jobs):
            job.ended.set()
        return done

    # -- in the event loop's thread ----------------------------------------------------------------------------

    def _main(self, loop: asyncio.AbstractEventLoop) -> None:
        ready, ended = self._ready, self._ended
        asyncio.set_event_loop(loop)
        loop.set_default_executor(_NativeExecutor(loop))
        loop.call_soon(self._return, ready.set)
        try:
            loop.run_forever()
        finally:
            # Not shutdown_default_executor, which would wait for a thread that gevent has made a greenlet.
            with contextlib.suppress(Exception):
                loop.run_until_complete(loop.shutdown_asyncgens())
            with contextlib.suppress(Exception):
                loop.close()
            self._return(ended.set)

    def _launch(self, job: _Job[Any]) -> None:
        assert self._loop is not None
        job.task = self._loop.create_task(job.main())
        job.task.add_done_callback(lambda _: self._settle(job))

    def _settle(self, job: _Job[Any]) -> None:
        job.coroutine.close()  # it may have been cancelled before it began
        self._return(job.ended.set)

    async def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_CANCEL_LIMIT)
        loop.stop()

    def _return(self, callback: Callable[[], object]) -> None:
        self._returns.append(callback)  # type: ignore[arg-type]
        with contextlib.suppress(Exception):  # the watcher is closed once no greenlet waits
            self._watcher.send()

    def _report(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Logging takes locks that gevent has replaced, so a greenlet does it.
        self.post(lambda: log.error("%s", context.get("message"), exc_info=context.get("exception")))

    # -- in the greenlets' hub ---------------------------------------------------------------------------------

    def _deliver(self) -> None:
        while self._returns:
            self._returns.popleft()()


class _Job(Generic[T]):
    """A coroutine that runs in the loop's thread while a greenlet waits for it."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.coroutine = coroutine
        self.ended = Event()
        self.task: asyncio.Task[None] | None = None
        self.abandoned = False
        self._value: list[T] = []
        self._error: BaseException | None = None

    async def main(self) -> None:
        try:
            self._value.append(await self.coroutine)
        except BaseException as error:
            # Also SystemExit and KeyboardInterrupt, which are for the greenlet and would end the event loop here.
            self._error = error

    def cancel(self) -> None:
        """Cancel the task; called in the loop's thread, after the launch."""
        if self.task is not None:
            self.task.cancel()

    def result(self) -> T:
        if self._value:
            return self._value[0]
        if self._error is None or (self.abandoned and isinstance(self._error, asyncio.CancelledError)):
            raise BridgeStopped("the bridge stopped before the coroutine ended")
        raise self._error


class _NativeExecutor(ThreadPoolExecutor):
    """Runs each call of `loop.run_in_executor` in a native thread of its own; a patched pool would use greenlets.

    It is for single blocking calls, such as a name look-up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Without super().__init__(), as only the type is used.
        self._owner = loop

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
        # run_in_executor returns an asyncio future as it is; those of concurrent.futures use gevent's locks.
        future = self._owner.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        def work() -> None:
            value, error = None, None
            try:
                value = function(*arguments, **named)
            except BaseException as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                self._owner.call_soon_threadsafe(settle, value, error)

        native_thread(work, ())
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: each thread ends with its call."""


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that waits with the system's own calls, not with gevent's."""
    try:
        import uvloop
    except ImportError:
        return _plain_loop()
    return uvloop.new_event_loop()


def _plain_loop() -> asyncio.AbstractEventLoop:
    if os.name == "nt":
        return asyncio.new_event_loop()
    loop = asyncio.SelectorEventLoop(monkey.get_original("selectors", "DefaultSelector")())
    look_up = monkey.get_original("socket", "getaddrinfo")

    async def getaddrinfo(host: Any, port: Any, **how: Any) -> Any:
        return await loop.run_in_executor(None, lambda: look_up(host, port, **how))

    loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]
    return loop

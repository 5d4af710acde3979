"""A Locust user whose tasks are ``async def``.

    class Reader(AsyncUser):
        wait_time = between(1, 2)

        @task
        async def read(self) -> None:
            await pool.fetch("SELECT 1")

A user is one coroutine, which picks tasks by their weights as Locust does; its greenlet only waits for the end. That
is twice as fast as handing over each request. Tasks run in the event loop's thread, so they must not use gevent or
fire Locust's events themselves: `self.bridge.post` does that in a greenlet.
"""

import asyncio
import inspect
import random
import traceback
from collections.abc import Awaitable
from typing import Any, ClassVar

from gevent import GreenletExit
from locust import User
from locust.env import Environment
from locust.exception import InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately, StopTest, StopUser
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING

from esx.loadtest.bridge import AsyncioBridge, log

_AFTER_ERROR = 1.0


class AsyncUser(User):
    """The base of users with ``async def`` tasks, to be subclassed like `locust.User`.

    `on_start` and `on_stop` may be ``async def`` too. A graceful stop (Locust's stop timeout) lets the task in
    progress finish; a forced one cancels it. An exception that a task does not catch is reported as Locust does,
    and the user pauses for at least a second, so that a failing task does not spin. A task must await something
    now and then, or the other users do not run. TaskSets are not supported.
    """

    abstract = True
    bridge: ClassVar[AsyncioBridge] = AsyncioBridge()
    """The event loop, shared by all users of the process. It starts with the first of them."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        for each in self.tasks:
            if not inspect.iscoroutinefunction(each):
                raise TypeError(f"{type(self).__name__} is an AsyncUser: its task {each!r} must be `async def`")
        self._halt: asyncio.Event | None = None

    def on_start(self) -> Awaitable[None] | None:  # type: ignore[override]
        """Run when the user starts. Override it, with ``def`` or ``async def``."""

    def on_stop(self) -> Awaitable[None] | None:
        """Run when the user stops. Override it, with ``def`` or ``async def``."""

    @property
    def stopping(self) -> bool:
        """Whether the user has been asked to stop after the task in progress."""
        return bool(self._state == LOCUST_STATE_STOPPING)

    async def pause(self, seconds: float) -> None:
        """Sleep for so many seconds, or until the user is asked to stop."""
        if self._halt is None or seconds <= 0:
            return  # other users run whenever a task awaits something
        try:
            async with asyncio.timeout(seconds):
                await self._halt.wait()
        except TimeoutError:
            return

    def run(self) -> None:  # type: ignore[misc]
        """Run the user, for Locust: in place of its loop over tasks in a greenlet."""
        if self.stopping:
            return
        self._state = LOCUST_STATE_RUNNING
        try:
            self.bridge.run(self._live())
        except (GreenletExit, StopUser, StopTest):
            return

    def stop(self, force: bool = False) -> bool:
        """Stop, for Locust: gracefully, or by `force`."""
        if force:
            return bool(super().stop(force=True))
        # Always after the task in progress; Locust itself would kill a user that waits between two tasks.
        self._state = LOCUST_STATE_STOPPING
        self.bridge.call_soon(self._wake)
        return False

    def _wake(self) -> None:
        if self._halt is not None:
            self._halt.set()

    async def _live(self) -> None:
        self._halt = asyncio.Event()
        await _maybe(self.on_start())
        try:
            while not self.stopping:
                try:
                    await random.choice(self.tasks)(self)  # type: ignore[operator]  # noqa: S311
                except (RescheduleTask, RescheduleTaskImmediately, InterruptTaskSet):
                    pass
                except (StopUser, StopTest):
                    return
                except Exception as error:
                    self.bridge.post(self._report, error)
                    if not self.environment.catch_exceptions:
                        raise
                    await self.pause(max(_AFTER_ERROR, self.wait_time()))
                else:
                    if (seconds := self.wait_time()) > 0:
                        await self.pause(seconds)
        finally:
            await _maybe(self.on_stop())

    def _report(self, error: Exception) -> None:
        self.environment.events.user_error.fire(user_instance=self, exception=error, tb=error.__traceback__)
        log.error("%s\n%s", error, "".join(traceback.format_exception(error)))


async def _maybe(result: Any) -> None:
    if inspect.isawaitable(result):
        await result

"""Notifications: one listening connection for all subscribers of a store.

A notification only says that there may be something to read. A lost notification loses no event, as readers also poll.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator

from esx.postgres.background import keep_running
from esx.postgres.connection import Connector
from esx.postgres.driver_errors import DRIVER_ERRORS, first_line, is_connection_loss

_log = logging.getLogger("esx.doorbell")
_RINGS = """
    SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = {table} AND tgname = 'events_doorbell'
                   AND tgenabled IN ('O', 'A'))
"""
_NO_TRIGGER = "table events has no trigger that rings: run `esx init` to add it"


class Doorbell:
    """Listens on a channel and wakes all readers; after a lost connection it connects again, with growing pauses.

    A heartbeat query notices a connection that has died silently. After each reconnection all readers are woken,
    because a notification may have been missed.

    Behind a pooler in transaction mode it does not listen, as the LISTEN would stay in a session of other clients:
    readers poll. They also poll if the table has no trigger that rings, until the first notification comes.
    """

    def __init__(self, connector: Connector, channel: str) -> None:
        self._connector = connector
        self._timings = connector.timings
        self._channel = channel
        self._wakers: set[asyncio.Event] = set()
        self._watchers: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._first_try = asyncio.Event()
        self.table = "to_regclass('events')"
        """The expression for the oid of the table whose trigger rings."""
        self.no_trigger = _NO_TRIGGER
        """What to say where that table has no such trigger."""
        self.listening = False
        self.problem: str | None = None
        """Why it does not listen, in one line; None while it listens, and before the first attempt."""

    async def start(self) -> None:
        """Start to listen in the background; return when the first attempt has succeeded or failed."""
        if self._task is None:
            self._task = keep_running(self._run, "esx-doorbell")
        await self._first_try.wait()

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            self._first_try.clear()

    @contextlib.contextmanager
    def waker(self) -> Iterator[asyncio.Event]:
        """Yield an event that is set when there may be something to read; the caller clears it."""
        event = asyncio.Event()
        self._wakers.add(event)
        try:
            yield event
        finally:
            self._wakers.discard(event)

    @contextlib.contextmanager
    def watched(self, changed: Callable[[], None]) -> Iterator[None]:
        """Call `changed` when listening begins or ends."""
        self._watchers.append(changed)
        try:
            yield
        finally:
            self._watchers.remove(changed)

    def _tell(self) -> None:
        for changed in list(self._watchers):
            changed()

    def ring(self) -> None:
        """Wake all readers."""
        for event in self._wakers:
            event.set()

    def _heard(self) -> None:
        if not self.listening:
            self._set_listening(True)
        else:
            self.ring()

    def _set_listening(self, rings: bool) -> None:
        self.listening = rings
        self.problem = None if rings else self.no_trigger
        # Readers decide by this whether they poll.
        self.ring()
        self._tell()

    async def _run(self) -> None:
        pause = self._timings.retry_first
        while self._connector.pooler is None:
            try:
                await self._listen()
                pause = self._timings.retry_first
            except Exception as error:
                self.problem = first_line(error)
                if not isinstance(error, (*DRIVER_ERRORS, OSError, ValueError)):
                    _log.exception("listening failed, and begins again in %.1f s", self._timings.retry_last)
                if not is_connection_loss(error):
                    pause = self._timings.retry_last
            finally:
                self.listening = False
                self._first_try.set()
            # Readers have to poll now.
            self.ring()
            self._tell()
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._timings.retry_last)
        self.problem = f"no LISTEN: {self._connector.pooler}"
        self._first_try.set()

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        connection = await self._connector.open("listener")
        lost = asyncio.Event()
        on_lost: Callable[[object], None] = lambda _connection: lost.set()
        connection.add_termination_listener(on_lost)
        try:
            async with asyncio.timeout(self._timings.heartbeat_answer):
                await connection.add_listener(self._channel, lambda *_: self._heard())
                rings = await connection.fetchval(_RINGS.format(table=self.table))
            self._set_listening(rings)
            self._first_try.set()
            while not lost.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), self._timings.heartbeat)
                if not lost.is_set():
                    asked = _RINGS.format(table=self.table)
                    before, rings = rings, await connection.fetchval(asked, timeout=self._timings.heartbeat_answer)
                    if rings != before:
                        self._set_listening(rings)
            self.problem = "the listening connection was lost"
        finally:
            connection.terminate()

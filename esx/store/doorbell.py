"""Being woken: one listening connection for any number of subscribers of a process.

A notification is a hint that there is something to read, never the event itself, and losing one loses nothing:
readers poll besides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from esx.store.background import keep_running
from esx.store.driver import DRIVER_ERRORS, first_line, is_connection_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esx.store.connection import Connector

_log = logging.getLogger("esx.doorbell")
_HEARTBEAT = 15.0
_HEARTBEAT_TIMEOUT = 5.0
_FIRST_RETRY = 0.1
_LAST_RETRY = 5.0
_RINGS = """
    SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = {table} AND tgname = 'events_doorbell'
                   AND tgenabled IN ('O', 'A'))
"""
_NO_TRIGGER = "table events has no trigger that rings: run `esx init` to add it"


class Doorbell:
    """Listens on a channel and wakes everyone registered, reconnecting with backoff when the connection dies.

    Behind a pooler that lends sessions for a transaction there is nothing to listen with: readers poll, and nobody else
    is disturbed by a LISTEN left behind.

    A heartbeat query notices a connection that died silently. After each reconnection everyone is woken, since
    a notification may have been missed meanwhile.

    Where the table has no trigger that would ring, nothing is to be heard, unless somebody notifies all the same.
    """

    def __init__(self, connector: Connector, channel: str) -> None:
        self._connector = connector
        self._channel = channel
        self._wakers: set[asyncio.Event] = set()
        self._watchers: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._first_try = asyncio.Event()
        self.table = "to_regclass('events')"
        """The expression for the oid of the table whose trigger rings."""
        self.listening = False
        self.problem: str | None = None
        """Why it does not listen, in one line; None while it does or has not tried."""

    async def start(self) -> None:
        """Start listening in the background and return once the first attempt has succeeded or failed."""
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
        """Register an event that is set whenever there may be something to read; its user clears it."""
        event = asyncio.Event()
        self._wakers.add(event)
        try:
            yield event
        finally:
            self._wakers.discard(event)

    @contextlib.contextmanager
    def watched(self, changed: Callable[[], None]) -> Iterator[None]:
        """Have `changed` called whenever listening begins or ends."""
        self._watchers.append(changed)
        try:
            yield
        finally:
            self._watchers.remove(changed)

    def _tell(self) -> None:
        for changed in list(self._watchers):
            changed()

    def ring(self) -> None:
        """Wake everyone."""
        for event in self._wakers:
            event.set()

    def _heard(self) -> None:
        if not self.listening:
            self._set_listening(True)
        else:
            self.ring()

    def _set_listening(self, rings: bool) -> None:
        self.listening = rings
        self.problem = None if rings else _NO_TRIGGER
        # Whoever waits may have waited for the wrong thing.
        self.ring()
        self._tell()

    async def _run(self) -> None:
        pause = _FIRST_RETRY
        while self._connector.pooler is None:
            try:
                await self._listen()
                pause = _FIRST_RETRY
            except Exception as error:
                self.problem = first_line(error)
                if not isinstance(error, (*DRIVER_ERRORS, OSError, ValueError)):
                    _log.exception("listening failed, and begins again in %.1f s", _LAST_RETRY)
                if not is_connection_loss(error):
                    pause = _LAST_RETRY
            finally:
                self.listening = False
                self._first_try.set()
            # Whoever waits to be called has to look for himself now.
            self.ring()
            self._tell()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_RETRY)
        self.problem = f"no LISTEN: {self._connector.pooler}"
        self._first_try.set()

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        connection = await self._connector.open("listener")
        lost = asyncio.Event()
        on_lost: Callable[[object], None] = lambda _connection: lost.set()
        connection.add_termination_listener(on_lost)
        try:
            async with asyncio.timeout(_HEARTBEAT_TIMEOUT):
                await connection.add_listener(self._channel, lambda *_: self._heard())
                rings = await connection.fetchval(_RINGS.format(table=self.table))
            self._set_listening(rings)
            self._first_try.set()
            while not lost.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), _HEARTBEAT)
                if not lost.is_set():
                    asked = _RINGS.format(table=self.table)
                    before, rings = rings, await connection.fetchval(asked, timeout=_HEARTBEAT_TIMEOUT)
                    if rings != before:
                        self._set_listening(rings)
            self.problem = "the listening connection was lost"
        finally:
            connection.terminate()

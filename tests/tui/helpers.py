"""Common to the tests of the explorer: opening it, waiting for it, and reading its screen."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from textual._compositor import Compositor
from textual._context import visible_screen_stack
from textual.app import ScreenStackError
from textual.css.query import NoMatches
from textual.pilot import Pilot, WaitForScreenTimeout

from esx.database_choice import Database
from esx.model import NewEvent
from esx.tui.app import Explorer
from esx.tui.screens.feed import FeedPane
from esx.tui.screens.streams import StreamsPane
from esx.tui.session.session import SessionState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from rich.console import RenderableType
    from textual._queue import Queue
    from textual.message import Message
    from textual.message_pump import MessagePump

    from esx.eventstore import EventStore

PATIENCE = 150.0
"""Seconds, far more than anything takes: how long that is, a busy machine decides."""


_TURNS = 5
_EARLY, _LATE = 0.02, 0.1
"""Seconds between looks for a condition: soon at first, and then so that looking does not take what it waits for."""


class QuickPilot(Pilot[None]):
    """Waits until all parts of a screen rest, its layout too, but asks only those that have something to do.

    To ask each of them took half of the time of a key.
    """

    async def _wait_for_screen(self, timeout: float = 30.0) -> bool:
        # What goes on and on, such as a feed, is not waited for.
        for turn in range(_TURNS):
            try:
                screen = self.app.screen
                parts: list[MessagePump] = [each for each in screen.walk_children(with_self=False) if not _rests(each)]
            except ScreenStackError:
                return False
            if not turn:
                # All goes through these two.
                parts += [self.app, screen]
            elif _rests(screen) and not parts:
                break
            if not await self._handled(parts, timeout):
                return False
            if self.app._running and screen.is_running:
                screen._on_timer_update()
        return True

    async def _handled(self, parts: Iterable[MessagePump], timeout: float) -> bool:
        """Wait until these have handled the messages that they have; return False if the app failed meanwhile."""
        done = asyncio.Event()
        left = set(parts)

        def handled(part: MessagePump) -> None:
            left.discard(part)
            if not left:
                done.set()

        for part in list(left):
            if not part.call_later(handled, part):
                handled(part)
        if not left:
            return True
        failed: asyncio.Task[Any] = asyncio.create_task(self.app._exception_event.wait())
        waiting: asyncio.Task[Any] = asyncio.create_task(done.wait())
        await asyncio.wait({failed, waiting}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in (failed, waiting):
            task.cancel()
        if left and not self.app._exception_event.is_set():
            raise WaitForScreenTimeout("widgets did not process their messages")
        return not left


def _rests(part: MessagePump) -> bool:
    """Return whether a part has handled every message, and waits for the next."""
    queue: Queue[Message | None] = part._message_queue
    return queue.empty() and bool(queue.ready_event._waiters)


async def until(pilot: Pilot[None], condition: Callable[[], object], what: str = "") -> None:
    """Wait for a condition; fail, saying what the screen shows, if it does not come."""
    deadline, pause = monotonic() + PATIENCE, _EARLY
    while True:
        with contextlib.suppress(LookupError, NoMatches):
            if condition():
                return
        if monotonic() > deadline:
            raise AssertionError(f"waited in vain {what}; the screen shows:\n" + "\n".join(lines_of(pilot.app)))
        await pilot.pause(pause)
        await pilot._wait_for_screen()
        pause = min(pause * 1.2, _LATE)


def lines_of(app: Any) -> list[str]:
    """Return the lines on screen as text."""
    visible_screen_stack.set(app._background_screens)  # what is below a dialog
    return [strip.text for strip in app.screen._compositor.render_strips()]


def text_of(app: Any) -> str:
    """Return the screen as text."""
    return "\n".join(lines_of(app))


def words(app: Any) -> str:
    """Return the screen as words, without its line breaks."""
    return " ".join(text_of(app).replace("│", " ").split())


@contextlib.asynccontextmanager
async def explorer(
    dsn: str,
    *,
    size: tuple[int, int] = (160, 40),
    connected: bool = True,
    label: str = "test database",
    read_only: bool | None = None,
    store: str | None = None,
    drawn: bool = False,
    **options: Any,
) -> AsyncIterator[tuple[Explorer, Pilot[None]]]:
    """Open the explorer without a terminal; with `connected`, wait until streams are listed.

    Without `drawn`, the screen is drawn only when a test reads it, as `text_of` does, and nothing is animated: frames
    that nobody looks at take half of the time.
    """
    app = Explorer(Database(dsn, "--dsn", label, False, read_only=read_only, store=store), **options)
    frames = contextlib.nullcontext() if drawn else no_frames()
    if not drawn:
        app.animation_level = "none"
    with frames:
        async with app.run_test(size=size, notifications=True):
            pilot = QuickPilot(app)
            if connected:
                await until(pilot, lambda: app.session.state is SessionState.CONNECTED, "for a connection")
                await until(
                    pilot, lambda: browse(app).streams.rows and browse(app).streams.has_focus, "for the streams"
                )
            yield app, pilot


@contextlib.contextmanager
def no_frames() -> Iterator[None]:
    """Let nothing be drawn on what would be the terminal, except when all of it is asked for, as for a picture."""
    render = Compositor.render_update

    def render_update(compositor: Compositor, full: bool = False, **options: Any) -> RenderableType | None:
        if full:
            return render(compositor, full, **options)
        compositor._dirty_regions.clear()
        return None

    with patch.object(Compositor, "render_update", render_update):
        yield


def browse(app: Explorer) -> StreamsPane:
    """Return the screen Streams."""
    return app.query(StreamsPane).first()


def feed_of(app: Explorer) -> FeedPane:
    """Return the screen Feed."""
    return app.query(FeedPane).first()


def ids(app: Explorer) -> list[str]:
    """Return the streams that are listed."""
    return [row.summary.stream_id for row in browse(app).streams.rows if row.summary is not None]


async def fill(store: EventStore, streams: int, events: int) -> None:
    """Append to streams named s-000, s-001, ..."""
    for number in range(streams):
        batch = [NewEvent(f"Type{at % 3}", {"at": at, "of": number}, {"user": "ann"}) for at in range(events)]
        await store.append(f"s-{number:03d}", batch)

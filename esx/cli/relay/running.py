"""Running a relay from a command: what it says meanwhile, and at its end."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from esx.cli.events import ended_before
from esx.cli.output import OutputLines, incomplete, narrate
from esx.text import counted, visible

if TYPE_CHECKING:
    from esx.cli.relay.options import RelayOptions
    from esx.eventstore import EventStore
    from esx.store.relay.relay import RelayProgress
    from esx.store.relay.target import RelayTarget

_EVERY = 1.0
"""Seconds from one line of --json to the next."""


class _Narrated(logging.Handler):
    """Prints what a relay logs, such as that it tries again."""

    def emit(self, record: logging.LogRecord) -> None:
        narrate(record.getMessage())


class _Report:
    """Prints how far the relay is, as JSON: at once, then at most once a second, and at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._lines = OutputLines() if as_json else None
        self._last: RelayProgress | None = None
        self._next = 0.0

    def see(self, progress: RelayProgress) -> None:
        """Note how far it is."""
        self._last = progress
        if time.monotonic() >= self._next:
            self._print()
            self._next = time.monotonic() + _EVERY

    def end(self) -> None:
        """Print where it ended."""
        self._print()
        if self._last is not None:
            narrate(f"{counted(self._last.sent, 'event')} sent, up to global_seq {self._last.position}")

    def _print(self) -> None:
        if self._lines is not None and self._last is not None:
            self._lines.value(self._last._asdict())
            self._lines.flush()


async def run_relay(
    store: EventStore, target: RelayTarget, options: RelayOptions, *, window: int | None = None
) -> None:
    """Run a relay until it is ended, with `once` until the safe position."""
    from esx.errors import UnknownConsumer

    log = logging.getLogger("esx.relay")
    log.addHandler(_Narrated())
    log.propagate = False
    name, once = options.name, options.once
    called = visible(name, limit=60)
    try:
        report = await store.consumer(name)
        told = f"goes on after {report.position}"
        if options.start is not None:
            told += " (--from is for its first run)"
        if report.paused:
            told += f", and is paused: esx consumers resume {called}"
        elif report.runner is not None:
            told = f"waits: {report.runner} runs it now"
    except UnknownConsumer:
        told = "begins"
    narrate(f"relay {called} {told}{'' if once else '  (Ctrl-C ends it)'}")
    progress = _Report(as_json=options.as_json)
    gap = None
    try:
        gap = await store.relay(
            name,
            target,
            stream=options.stream,
            event_type=options.event_type,
            where=options.where,
            start=options.start,  # type: ignore[arg-type]
            on_error=options.on_error,  # type: ignore[arg-type]
            once=once,
            on_progress=progress.see,
            **({} if window is None else {"window": window}),
        )
    finally:
        progress.end()
    if gap is not None:
        incomplete(ended_before((await store.consumer(name)).position, gap))

"""Progress on stderr, for long work: how many events (or whatever it is) are done, how many a second, the share."""

from __future__ import annotations

import sys
import time

_EVERY = 0.2


class Meter:
    """Shows one line that is written over, if a person is there to see it; otherwise does nothing.

    `quiet` keeps it from a terminal that is being printed to, `noun` is what is counted. Use it as a context manager:
    the line is wiped at the end.
    """

    def __init__(self, *, quiet: bool = False, noun: str = "events") -> None:
        self._noun = noun
        self._shown = sys.stderr.isatty() and not quiet
        self._began = self._last = time.monotonic()

    def update(self, events: int, share: float | None = None) -> None:
        """Show `events` done and, if known, the `share` done, from 0 to 1; a few times a second at most."""
        now = time.monotonic()
        if not self._shown or now - self._last < _EVERY:
            return
        self._last = now
        done = "" if share is None else f"  {min(share, 1.0):.0%}"
        sys.stderr.write(f"\r\x1b[K{events:,} {self._noun}  {self.rate(events):,.0f}/s{done}")
        sys.stderr.flush()

    def rate(self, events: int) -> float:
        """Return events a second since the start."""
        return events / max(time.monotonic() - self._began, 1e-6)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_error: object) -> None:
        self.wipe()

    def wipe(self) -> None:
        """Take the line away, so that something else can be printed there."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

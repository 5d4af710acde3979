"""Sends the appends of a capsule again, at their recorded times or faster."""

from __future__ import annotations

from collections.abc import Sequence

from esx.capsule.appends import CapsuleAppend
from esx.loadtest.mix import AppendDraw


class RecordedAppends:
    """The appends to be sent. All writers of a run take them in turn, so none waits for another's answer."""

    def __init__(self, appends: Sequence[CapsuleAppend], times: float) -> None:
        """Send `appends`, `times` as fast as they were recorded."""
        self._appends = appends
        self._times = times
        self._taken = self._ended = 0

    @property
    def done(self) -> bool:
        """Whether all have been sent, with any outcome."""
        return self._ended >= len(self._appends)

    def take(self) -> tuple[int, AppendDraw] | None:
        """Return the next append, and how many nanoseconds after the beginning it is due; None after the last."""
        if self._taken >= len(self._appends):
            return None
        append = self._appends[self._taken]
        self._taken += 1
        # What began a stream finds none there, unless another writer was faster, and then it can be tried again.
        return int(append.at / self._times * 1e9), AppendDraw(append.stream, False, append.events)

    def end(self) -> None:
        """Note that one that was taken has been sent."""
        self._ended += 1

"""Where a reader of the global order is."""

from __future__ import annotations

from esx.store.feed.batch import Batch, Counts
from esx.store.feed.history import History
from esx.store.feed.recent import Recent


class Cursor:
    """The position of a reader, its counters, and what it remembers of the events before the position.

    Each batch moves it. `settled` says that no event can appear at or below the `position` where it begins; one that
    does counts as missed.
    """

    def __init__(self, position: int = 0, *, settled: bool = False) -> None:
        self.counts = Counts(position)
        self.recent = Recent(position)
        self.proven = settled or position <= 0
        """Whether it is proven for all readers that no event can appear at or below the position."""
        self.look_back = settled and position > 0
        """Whether the events that are visible below the start are still to be noted."""

    @property
    def position(self) -> int:
        """The global_seq up to which everything has been read."""
        return self.counts.position

    @property
    def history(self) -> History | None:
        """What identifies the history that was read; None before the first step."""
        return self.recent.history

    def take(self, batch: Batch) -> None:
        """Move to the end of a batch, and count what is in it."""
        self.counts = self.counts.after(batch)

    def copy(self) -> Cursor:
        """Return a cursor for another reader that goes on from here."""
        copy = Cursor(self.position, settled=self.proven)
        copy.counts, copy.recent = self.counts, self.recent.up_to(self.position)
        return copy

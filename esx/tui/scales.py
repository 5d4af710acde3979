"""Where a list's rows lie in the whole of it, so that scrollbars and jumps can span what is not loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from esx.store.reading import StreamKey

if TYPE_CHECKING:
    from esx.store.estimating import Estimate
    from esx.store.scale import NameScale

Key = TypeVar("Key")


class Scale(Protocol[Key]):
    """Maps places in a list, 0 at the top, to keys, and back."""

    length: int
    """How many rows there are, or about how many."""
    exact: bool
    """Whether the length is more than an estimate."""
    steady: bool
    """Whether two rows next to each other are next to each other on the scale as well, or nearly."""

    def before(self, place: int) -> Key:
        """Return the key after which the row at `place` follows."""
        ...

    def place(self, key: Key) -> int:
        """Return where the row with this key is."""
        ...


class Numbers:
    """The scale of rows numbered from `low` to `high`, listed upwards or downwards.

    `dense` says that no number is missing.
    """

    steady = True

    def __init__(self, low: int, high: int, *, downwards: bool, dense: bool) -> None:
        self.low, self.high = low, high
        self.length = max(high - low + 1, 0)
        self.exact = dense
        self._downwards = downwards

    def before(self, place: int) -> int:
        """Return the number before the one at `place`, in the direction of the list."""
        return self.high - place + 1 if self._downwards else self.low + place - 1

    def place(self, key: int) -> int:
        """Return where a number is."""
        return self.high - key if self._downwards else key - self.low


class Names:
    """The scale of the `streams` by name, those from `low` up to `high`, below `above` other rows."""

    steady = False

    def __init__(self, names: NameScale, low: str, high: str, *, streams: Estimate, above: int) -> None:
        self._names = names
        self._from, self._to = names.rank(low), names.rank(high)
        self._above = above
        self.streams = streams
        self.exact = streams.exact
        self.length = streams.count + above

    def before(self, place: int) -> StreamKey:
        """Return a key that about so many streams come before."""
        part = (place - self._above) / max(self.length - self._above, 1)
        return StreamKey(self._names.name_at(self._from + part * (self._to - self._from)), 0)

    def place(self, key: StreamKey) -> int:
        """Return about how many rows come before a stream."""
        span = self._to - self._from
        part = (self._names.rank(key.stream_id) - self._from) / span if span else 0.0
        return self._above + round(part * (self.length - self._above))

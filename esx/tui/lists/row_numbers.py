"""From a row's number in the whole list to its key, and back: scrollbars and jumps span rows that are not loaded."""

from typing import Protocol, TypeVar

from esx.store.read.estimates import Estimate
from esx.store.read.pages import StreamKey
from esx.store.read.scale import NameScale

Key = TypeVar("Key")


class RowNumbers(Protocol[Key]):
    """Maps row numbers of a list, 0 at the top, to keys and back."""

    length: int
    """How many rows there are, exactly or about."""
    steady: bool
    """Whether neighbours get (almost) neighbouring numbers."""

    def before(self, place: int) -> Key:
        """Return the key after which the row at `place` follows."""
        ...

    def place(self, key: Key) -> int:
        """Return the row number of a key."""
        ...


class NumberedRows:
    """Rows whose keys are the numbers from `low` to `high`, listed upwards or downwards."""

    steady = True

    def __init__(self, low: int, high: int, *, downwards: bool) -> None:
        self.low, self.high = low, high
        self.length = max(high - low + 1, 0)
        self._downwards = downwards

    def before(self, place: int) -> int:
        """Return the number before the one at `place`, in the direction of the list."""
        return self.high - place + 1 if self._downwards else self.low + place - 1

    def place(self, key: int) -> int:
        """Return the row number of a number."""
        return self.high - key if self._downwards else key - self.low


class NamedRows:
    """The `streams` by name, from `low` to `high`, below `above` other rows; all numbers are estimates."""

    steady = False

    def __init__(self, names: NameScale, low: str, high: str, *, streams: Estimate, above: int) -> None:
        self._names = names
        self._from, self._to = names.rank(low), names.rank(high)
        self._above = above
        self.streams = streams
        self.length = streams.count + above

    def before(self, place: int) -> StreamKey:
        """Return a key that about `place` rows come before."""
        part = (place - self._above) / max(self.length - self._above, 1)
        return StreamKey(self._names.name_at(self._from + part * (self._to - self._from)), 0)

    def place(self, key: StreamKey) -> int:
        """Return about how many rows come before a stream."""
        span = self._to - self._from
        part = (self._names.rank(key.stream_id) - self._from) / span if span else 0.0
        return self._above + round(part * (self.length - self._above))

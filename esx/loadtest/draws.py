"""What users draw at random: streams, payloads, and the times at which commands are due. A seed repeats all of it."""

import random
import string
from array import array
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

from esx.load.model import LoadOptions
from esx.model import JsonText

_LETTERS = string.ascii_letters + string.digits
_PAD = 4096  # characters that payloads are cut from, at random places so that they do not compress well


class Heat:
    """Which streams are hot. All users of a process share one, as it may be large."""

    def __init__(self, options: LoadOptions) -> None:
        self._streams = options.streams
        self._hot = options.hot_streams
        self._share = options.hot_share
        self._weights: array[float] | None = None
        if options.zipf:
            weights = ((number + 1) ** -options.zipf for number in range(options.streams))
            self._weights = array("d", accumulate(weights))

    def picker(self, draw: Callable[[], float]) -> Callable[[], int]:
        """Return a function that picks a stream's number with `draw`, a source of random numbers from 0 to 1."""
        hot, streams, share, weights = self._hot, self._streams, self._share, self._weights
        if weights is not None:
            total = weights[-1]
            return lambda: min(bisect_left(weights, draw() * total), streams - 1)
        if not hot or hot == streams:
            return lambda: int(draw() * streams)

        def pick() -> int:
            if draw() < share:
                return int(draw() * hot)
            return hot + int(draw() * (streams - hot))

        return pick


class Payloads:
    """Makes events' data: JSON text of `size` bytes at most, or the smallest where that is larger."""

    def __init__(self, size: int, source: random.Random) -> None:
        self._size = size
        self._draw = source.random
        self._pad = ""
        if size:
            once = "".join(source.choices(_LETTERS, k=_PAD))
            self._pad = once * (size // _PAD + 2)

    def next(self, number: int, size: int | None = None) -> JsonText:
        """Return the data of a user's event `number`, of `size` bytes if that is given."""
        size = self._size if size is None else min(size, self._size)
        if not size:
            return JsonText(f'{{"n":{number}}}')
        start = f'{{"n":{number},"pad":"'
        at = int(self._draw() * _PAD)
        return JsonText(f'{start}{self._pad[at : at + max(size - len(start) - 2, 0)]}"}}')


class Schedule:
    """The times at which one user's commands are due: a Poisson process, as with ``pgbench -R``.

    Times are nanoseconds. They do not wait for the user: for one that falls behind they are in the past.
    """

    def __init__(self, per_second: float, begin: int, source: random.Random) -> None:
        self._mean = 1e9 / per_second
        self._draw = source.expovariate
        self._due = float(begin)

    def next(self) -> int:
        """Return when the next command is due."""
        self._due += self._draw(1.0) * self._mean
        return int(self._due)


def source(seed: int | None, *names: object) -> random.Random:
    """Return a source of randomness for one purpose: with a seed it is the same in every run."""
    if seed is None:
        return random.Random()  # noqa: S311 - draws streams, keeps no secrets
    return random.Random("/".join(map(str, (seed, *names))))  # noqa: S311

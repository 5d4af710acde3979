"""Tells a pool which tasks hold something that others wait for."""

from contextvars import ContextVar


class Hold:
    """Something, such as a lock of a stream, that a task holds until `end`, while others with connections may wait.

    Tasks that it starts meanwhile hold it too, until `end`.
    """

    def __init__(self) -> None:
        self.holds = True
        _HELD.set((*(each for each in _HELD.get() if each.holds), self))

    def end(self) -> None:
        """Note that it is no longer held."""
        self.holds = False


_HELD: ContextVar[tuple[Hold, ...]] = ContextVar("held", default=())


def holds_something() -> bool:
    """Return whether this task holds something that others may wait for."""
    return any(each.holds for each in _HELD.get())

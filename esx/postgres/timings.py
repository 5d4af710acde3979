"""Waits and intervals of a store's connections; `Connector` has the limit for connecting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Waits and intervals, in seconds. Tests make them shorter."""

    group: float = 0.5
    """How long one transaction serves reads in quick succession."""
    rest: float = 0.05
    """How long such a transaction waits for the next read."""
    check: float = 5.0
    """How often a pool checks whether reading is still safe."""
    heartbeat: float = 15.0
    """How often the listening connection is checked."""
    heartbeat_answer: float = 5.0
    """How long the answer to that check may take."""
    retry_first: float = 0.1
    """The pause before the listening connection is opened again; it doubles each time, up to `retry_last`."""
    retry_last: float = 5.0

"""How often the explorer looks at its database, and how far."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic


@dataclass(frozen=True, slots=True)
class Tuning:
    """Values that suit users, and that tests make quicker or smaller. Times are in seconds."""

    retry: float = 3.0
    """Between attempts to reach a database that is away, or to follow its feed."""
    poll: float = 2.0
    """How long the feed waits for a notification at most: an explorer that is left open shall cost little."""
    read_health: float = 2.0
    """Between readings of the figures on the Health screen, while it is shown."""
    examine: float = 60.0
    """Between examinations by the doctor on the Health screen."""
    trail_scan: int = 200_000
    """How many events a trail looks at, where no index helps, before it asks to go on."""
    clock: Callable[[], float] = monotonic
    """What the feed's rates are measured by."""

"""How often a feed reads, how long it waits, and how much it reads at once."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """The times, in seconds, and the sizes for the feeds of a store."""

    poll: float = 1.0
    """The longest wait for a notification: the one that rings may have been rolled back."""
    poll_deaf: float = 0.25
    """The pause between two reads where there are no notifications."""
    look_every: float = 5.0
    """How often a reader counts the events below its position again."""
    behind_for: float = 60.0
    """How long a standby may lack events that were read elsewhere before they count as deleted."""
    standby_moment: float = 20.0
    """After this time a standby knows who was writing: an idle primary may not send what an open transaction has
    written, but every 15 s it logs which transactions are running."""
    clock_step: timedelta = timedelta(minutes=1)
    """How much a server's clock may have been set back, for comparisons of commit timestamps."""
    end_patience: float = 0.5
    """How long a feed that begins at the end waits for open writers."""
    look_back: int = 1_000_000
    """How many numbers below the head a feed that begins at the end may begin, if transactions are open."""
    page_characters: int = 4_000_000
    """After a page with more characters of payload than this, the next page has fewer events."""
    shared_characters: int = 16_000_000
    """How many characters of payload are kept for the slowest of the feeds that share a reader."""


DEFAULT = FeedSettings()

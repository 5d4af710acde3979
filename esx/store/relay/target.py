"""What a relay sends events to: the protocol of a target, and what is told to it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from esx.model import Event


class RelayIdentity(NamedTuple):
    """Which relay it is, of which store: relays of one name on different stores must not take each other's place.

    `consumer` is the number of the relay's row in the table consumers: another one, if the row was deleted and made
    again. `system` is the server's system identifier, None if this user may not ask for it. `table` is the events table
    with its schema, without quotes.
    """

    name: str
    consumer: int
    system: int | None
    database: str
    table: str


class TargetPosition(NamedTuple):
    """How far a relay has come, as a target keeps it.

    All events up to `position` were handed over or put aside. `history` is what was read up to there, as JSON
    (`History`). `consumer` is that of `RelayIdentity`. `resent` are the numbers of events that had been put aside and
    were sent with this step.
    """

    position: int
    history: str
    consumer: int
    resent: tuple[int, ...] = ()


class RelayTarget(Protocol):
    """Takes the events of a relay. All calls come from one task, one after another.

    `keeps_position` says whether the target stores the position together with the events, all or nothing. Then its
    position counts, the one in PostgreSQL is a copy of it, and each event arrives exactly once. Otherwise the position
    in PostgreSQL counts, which is stored after `commit`: events since then arrive again after a crash.

    Each method may raise TargetUnavailable (the relay opens the target again and goes on from the checkpoint, with
    growing pauses), TargetFailed (it stops), and, but for `open`, EventRefused for an event that will never be taken.
    """

    keeps_position: bool

    async def open(self, relay: RelayIdentity) -> TargetPosition | None:
        """Connect, again after an error, and drop what was sent and not committed. Return the position kept, or None.

        From now on no earlier instance of this relay can commit to a target that keeps the position.
        """
        ...

    async def send(self, events: Sequence[Event]) -> None:
        """Hand over events, after all that were sent before. It need not wait until they have arrived."""
        ...

    async def commit(self, position: TargetPosition) -> None:
        """Return when everything that was sent has arrived for good, and with it `position` if it is kept here."""
        ...

    async def abort(self) -> None:
        """Drop what was sent since the last commit, as far as that is possible. The relay then calls `open`."""
        ...

    async def close(self) -> None:
        """End within a few seconds, without raising; what was not committed is dropped. `open` may follow."""
        ...

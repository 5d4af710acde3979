"""What a load test appends with: esx itself, or another store's own way of appending.

The test asks three things of it: to append at a version, to tell a conflict from a failure, and to say which version
it acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import asyncpg

from esx.errors import EsxError
from esx.expected import ExpectedVersion
from esx.model import NewEvent, Strategy


class Conflict(EsxError):
    """Another store refused an append because of its version. Nothing was stored."""


class Acknowledged(Protocol):
    """What an append told: the version of its last event."""

    @property
    def version(self) -> int:
        """The stream's version after the append."""


class StreamAppender(Protocol):
    """Appends to streams for a load test. `EventStore` is one as it is: its appends pass through nothing else."""

    async def version(self, stream_id: str) -> int:
        """Return the version of a stream, -1 if it has no events."""

    async def append(
        self, stream_id: str, events: Sequence[NewEvent], *, expected: ExpectedVersion, strategy: Strategy
    ) -> Acknowledged:
        """Append all `events` or none, and return what was acknowledged.

        Raises WrongVersion or Conflict for a conflict, OutcomeUnknown where the answer was lost, and another EsxError
        where nothing was stored.
        """


class Stored(NamedTuple):
    """What another store acknowledged."""

    version: int


@dataclass(frozen=True, slots=True)
class Conflicts:
    """How a conflict shows: as no row, as an error of one of `states` (SQLSTATE), or one whose message has a text."""

    no_row: bool = False
    states: frozenset[str] = frozenset()
    messages: tuple[str, ...] = ()

    def has(self, error: asyncpg.PostgresError) -> bool:
        """Return whether an error of PostgreSQL is a conflict."""
        return error.sqlstate in self.states or any(each in str(error) for each in self.messages)

"""Reading the end of the global order once, for all feeds of a store that want the same events.

A feed catches up by itself. Where it has come to the end, and stands exactly where the tail of its kind stands, it
becomes a member: the tail reads, and every member is given what it read. So five subscribers cost PostgreSQL as much as
one. A member that is slow falls behind what the tail keeps, leaves, and catches up by itself again; it holds nobody
back and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Hashable, Iterator

    from esx.store.barrier import Batch, Gap
    from esx.store.recent import Recent

_KEPT_EVENTS = 10_000
_KEPT_CHARACTERS = 16_000_000
_REACH = 0.03
_WEIGHT = 1 + _KEPT_CHARACTERS // _KEPT_EVENTS


class Counts(NamedTuple):
    """How far a feed is, and what it passed on its way: see the properties of `Feed`."""

    position: int
    dead: int
    late: int
    looked: int
    missed: int
    erased: int

    def since(self, start: Counts, base: Counts) -> Counts:
        """Return `base` moved on by what was counted since `start`."""
        return Counts(
            self.position,
            base.dead + self.dead - start.dead,
            base.late + self.late - start.late,
            base.looked + self.looked - start.looked,
            base.missed + self.missed - start.missed,
            base.erased + self.erased - start.erased,
        )


class Source(Protocol):
    """The feed that reads for all."""

    on_change: Callable[[], None] | None
    """Called when the connection may have been lost or found again."""

    @property
    def counts(self) -> Counts:
        """How far it is."""

    @property
    def recent(self) -> Recent:
        """What it remembers of what it has passed."""

    @property
    def lost(self) -> str | None:
        """Why it is not connected."""

    @property
    def gap(self) -> Gap | None:
        """What holds it."""

    def follow(self) -> AsyncGenerator[Batch, None]:
        """Yield batches for ever."""


class Tails:
    """The tails of a store, by what their members want; each lasts as long as it has members."""

    def __init__(self) -> None:
        self._tails: dict[Hashable, Tail] = {}

    @contextlib.contextmanager
    def member(self, kind: Hashable, changed: Callable[[], None], source: Callable[[], Source]) -> Iterator[Member]:
        """Make a feed a member of the tail of its kind; the first one brings the `source`, where it stands itself.

        `changed` is called when the connection of the source may have been lost or found again; it must not raise.
        """
        tail = self._tails.get(kind)
        if tail is None or tail.ended:
            tail = self._tails[kind] = Tail(source())
        member = Member(tail, changed)
        tail.members.add(member)
        try:
            yield member
        finally:
            tail.members.discard(member)
            if not tail.members:
                tail.stop()
                if self._tails.get(kind) is tail:
                    del self._tails[kind]


class Tail:
    """One reader, and what it has read that not every member has taken."""

    def __init__(self, source: Source) -> None:
        self.members: set[Member] = set()
        self.failure: Exception | None = None
        """What ended it, if something did."""
        self.first = 0
        """The place of the oldest batch that is kept, counted from the start."""
        self._source = source
        source.on_change = self._changed
        self._kept: deque[tuple[Batch, Counts, int]] = deque()
        self._weight = 0
        self._wanted = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="esx-tail")

    @property
    def counts(self) -> Counts:
        """How far it is."""
        return self._source.counts

    @property
    def recent(self) -> Recent:
        """What it remembers of what it has passed."""
        return self._source.recent

    @property
    def lost(self) -> str | None:
        """Why it is not connected."""
        return self._source.lost

    @property
    def gap(self) -> Gap | None:
        """What holds it."""
        return self._source.gap

    @property
    def end(self) -> int:
        """The place of the next batch."""
        return self.first + len(self._kept)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._task.done()

    def at(self, place: int) -> tuple[Batch, Counts]:
        """Return the batch at a place from `first` to `end`, and how far the tail was with it."""
        batch, counts, _ = self._kept[place - self.first]
        return batch, counts

    def stop(self) -> None:
        """Read no more."""
        self._task.cancel()

    def want(self) -> None:
        """Read on: a member has taken all that there is."""
        self._wanted.set()

    def trim(self) -> None:
        """Let go of what every member has taken, and of the oldest where there is too much."""
        taken = min((member.place for member in self.members if member.place >= self.first), default=self.end)
        while self._kept and (self.first < taken or (self._weight > _KEPT_CHARACTERS and len(self._kept) > 1)):
            self._weight -= self._kept.popleft()[2]
            self.first += 1

    def wake(self) -> None:
        """Tell the members to look."""
        for member in self.members:
            member.news.set()

    def _changed(self) -> None:
        for member in list(self.members):
            member.changed()

    async def _run(self) -> None:
        try:
            async with contextlib.aclosing(self._source.follow()) as batches:
                async for batch in batches:
                    # One without events, which tells of a gap, takes its room as well.
                    weight = _WEIGHT + sum(event.characters + _WEIGHT for event in batch.events)
                    self._kept.append((batch, self._source.counts, weight))
                    self._weight += weight
                    self.trim()
                    self.wake()
                    # As long as nobody pulls there is nothing to read for.
                    while not any(member.place >= self.end for member in self.members):
                        self._wanted.clear()
                        await self._wanted.wait()
        except Exception as error:
            # Whatever it is: the members raise it.
            self.failure = error
        finally:
            self.wake()


class Member:
    """One feed's part in a tail. `start` is how far the tail was when it joined."""

    def __init__(self, tail: Tail, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.news = asyncio.Event()
        self._tail = tail
        self._join()

    def _join(self) -> None:
        self.start = self._seen = self._tail.counts
        self.place = self._tail.end
        self._tail.want()

    @property
    def seen(self) -> Counts:
        """How far the member is, as the tail counts."""
        # What a tail that failed had read last is not told any more.
        current = self.place == self._tail.end and not self._tail.ended
        return self._tail.counts if current else self._seen

    @property
    def gap(self) -> Gap | None:
        """What holds the tail, as far as this member was told all that it read."""
        return self._tail.gap if self.place == self._tail.end else None

    @property
    def recent(self) -> Recent:
        """What is remembered of what this member was given."""
        return self._tail.recent.up_to(self.seen.position)

    @property
    def lost(self) -> str | None:
        """Why the tail is not connected."""
        return self._tail.lost

    async def reach(self, position: int) -> bool:
        """Wait a moment for the tail to be at `position` or beyond, and begin there; False if it does not come.

        A tail that is held by a gap is not waited for: it may be one below what this feed has to do with.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REACH):
                while self._tail.counts.position < position:
                    if self._tail.ended or self._tail.gap is not None:
                        return False
                    self.news.clear()
                    await self.news.wait()
                    self._join()
                    self._tail.trim()
                return True
        return False

    async def follow(self) -> AsyncGenerator[Batch, None]:
        """Yield what the tail reads; ends when the member has fallen behind, raises what ended the tail."""
        tail = self._tail
        while self.place >= tail.first:
            if self.place < tail.end:
                batch, self._seen = tail.at(self.place)
                self.place += 1
                if self.place == tail.end:
                    tail.want()
                tail.trim()
                yield batch
            elif tail.ended:
                if tail.failure is not None:
                    raise tail.failure
                return
            else:
                self.news.clear()
                await self.news.wait()

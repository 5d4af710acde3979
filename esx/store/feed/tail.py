"""One reader of the end of the global order, a tail, for all feeds of a store that want the same events.

A feed catches up by itself. When it is at the end, exactly at the position of the tail, it becomes a member: the tail
reads, and gives each batch to all members. Five subscribers cost PostgreSQL as much as one. A member that is too slow
for what the tail keeps leaves, and catches up by itself. It does not delay the others, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator

from esx.store.feed.batch import Batch, Gap
from esx.store.feed.recent import Recent
from esx.store.feed.source import Source
from esx.store.rows import characters

_KEPT_EVENTS = 10_000
_REACH = 0.03


class Tails:
    """The tails of a store, by what they read. A tail exists while it has members."""

    def __init__(self) -> None:
        self._tails: dict[Hashable, Tail] = {}

    def __iter__(self) -> Iterator[Tail]:
        return iter(self._tails.values())

    @contextlib.contextmanager
    def member(self, source: Source, changed: Callable[[], None]) -> Iterator[Member]:
        """Make the feed of this source a member of the tail of its kind. A new tail begins where the source is.

        `changed` is called when the tail may have lost its connection or has one again; it must not raise.
        """
        kind = source.kind
        tail = self._tails.get(kind)
        if tail is None or tail.task.done():
            tail = self._tails[kind] = Tail(source.copy())
        member = Member(tail, changed)
        tail.members.add(member)
        try:
            yield member
        finally:
            tail.members.discard(member)
            if not tail.members:
                tail.task.cancel()
                if self._tails.get(kind) is tail:
                    del self._tails[kind]


class Tail:
    """One reader, and the batches that it has read and some member has not taken yet."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.position = source.cursor.position
        """The end of the last batch that was kept. The source may be further."""
        self.gap: Gap | None = None
        """The gap at `position`, if the tail waits at one."""
        self.members: set[Member] = set()
        self.failure: Exception | None = None
        """The exception that ended it."""
        self.first = 0
        """The index of the oldest batch that is kept, counted from the first batch of the tail."""
        self._most = source.settings.shared_characters
        self._event_weight = 1 + self._most // _KEPT_EVENTS
        self.kept: deque[tuple[Batch, int]] = deque()
        """The batches that are kept, each with its weight."""
        self.wanted = asyncio.Event()
        """Set when a member has taken all that there is."""
        self._weight = 0
        self.task = asyncio.create_task(self._run(), name="esx-tail")

    @property
    def end(self) -> int:
        """The index of the next batch."""
        return self.first + len(self.kept)

    def trim(self) -> None:
        """Drop the batches that all members have taken, and the oldest ones where more is kept than allowed."""
        taken = min((member.place for member in self.members if member.place >= self.first), default=self.end)
        while self.kept and (self.first < taken or (self._weight > self._most and len(self.kept) > 1)):
            self._weight -= self.kept.popleft()[1]
            self.first += 1

    def _changed(self) -> None:
        for member in list(self.members):
            member.changed()

    def _wake(self) -> None:
        for member in self.members:
            member.news.set()

    def _keep(self, batch: Batch) -> None:
        # A batch without events takes memory too.
        weight = self._event_weight * (1 + len(batch.events)) + characters(batch.events)
        self.kept.append((batch, weight))
        self._weight += weight
        self.position, self.gap = batch.position, batch.gap
        self.trim()
        self._wake()

    async def _run(self) -> None:
        try:
            async with contextlib.aclosing(self.source.follow(self._changed)) as batches:
                async for batch in batches:
                    if batch.counts_something or batch.gap != self.gap:
                        self._keep(batch)
                    # Read on only when a member has taken everything.
                    while not any(member.place >= self.end for member in self.members):
                        self.wanted.clear()
                        await self.wanted.wait()
        except Exception as error:
            self.failure = error  # the members raise it
        finally:
            self._wake()


class Member:
    """One feed that gets its batches from a tail."""

    def __init__(self, tail: Tail, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.news = asyncio.Event()
        self._tail = tail
        self._join()

    def _join(self) -> None:
        tail = self._tail
        self.place = tail.end
        self.position, self.gap = tail.position, tail.gap
        """The position where the member joined, and the gap at which the tail waited then."""
        tail.wanted.set()

    @property
    def source(self) -> Source:
        """The source that the tail reads."""
        return self._tail.source

    def recent(self, position: int) -> Recent:
        """Return what the tail remembers of the numbers up to `position`, for a feed that leaves it."""
        return self._tail.source.cursor.recent.up_to(position)

    async def reach(self, position: int) -> bool:
        """Wait a moment until the tail is at `position` or beyond, and join there; return False if it is not.

        It does not wait for a tail that waits at a gap: this feed may have passed that gap already.
        """
        tail = self._tail
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REACH):
                while self.position < position:
                    if tail.task.done() or tail.gap is not None:
                        return False
                    self.news.clear()
                    await self.news.wait()
                    self._join()
                    tail.trim()
                return True
        return False

    async def follow(self) -> AsyncGenerator[Batch, None]:
        """Yield the batches of the tail, until the member is too far behind. Raises the error that ended the tail."""
        tail = self._tail
        while self.place >= tail.first:
            if self.place < tail.end:
                batch = tail.kept[self.place - tail.first][0]
                self.place += 1
                if self.place == tail.end:
                    tail.wanted.set()
                tail.trim()
                yield batch
            elif tail.task.done():
                if tail.failure is not None:
                    raise tail.failure
                return
            else:
                self.news.clear()
                await self.news.wait()

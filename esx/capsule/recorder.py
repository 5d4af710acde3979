"""Records a capsule: the events of a slice, and what is seen of the feed, the consumers and the store meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import IO

from esx import __version__
from esx.capsule.format import FORMAT, LOAD, CapsuleBounds, CapsuleInfo, LoadSecond, encode
from esx.capsule.masking import Masker
from esx.capsule.sampling import Sampler
from esx.capsule.writing import CapsuleWriter
from esx.errors import EsxError, StoreUnavailable
from esx.eventstore import EventStore
from esx.filters import Filter
from esx.model import Event
from esx.positions import Position
from esx.store.feed.batch import Gap
from esx.store.feed.feed import Feed
from esx.text import counted

_PAGE = 1000
_TOGETHER = 6
"""How many pieces of an export are written at once."""
_TICK = 0.25
_LOOK_EVERY = 1.0
_CONSUMERS_EVERY = 2.0
_HEALTH_EVERY = 15.0
_ROOM = 2**26
"""A capsule ends before it has the most bytes that are read: pieces are written whole, and some come at the end."""
_ROOM_PACKED = 2**29
_ROOM_LINES = 1_000_000


class EventTooLarge(EsxError):
    """An event has more bytes than a line of a capsule. Nothing was recorded."""


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What to record.

    `start` is the global_seq after which events are recorded, a time from which on they were created, -1 for all, None
    for those that come from now on. `until` is a time before which they were created. With `follow` the feed is
    followed for so many seconds. `stream` is a glob.
    """

    start: int | datetime | None = -1
    until: datetime | None = None
    follow: float | None = None
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedCapsule:
    """What was recorded, with how many moments of the feed; `full`: it ended at the most that a capsule holds."""

    info: CapsuleInfo
    moments: int
    full: bool


class CapsuleRecorder:
    """One recording: `run` it once; `stop` lets one that follows end early, with all that it has."""

    def __init__(
        self,
        store: EventStore,
        options: RecordOptions,
        *,
        masker: Masker | None = None,
        load: Callable[[datetime, datetime], list[LoadSecond]] = lambda _begin, _end: [],
        on_progress: Callable[[int, float | None], None] | None = None,
        bounds: CapsuleBounds | None = None,
    ) -> None:
        """Record `store`; a `masker` masks what is written.

        `load` returns the lines of load tests that ran between two times. `on_progress` gets how many events have been
        recorded, and the share done, None where that is not known.
        """
        self._store = store
        self._options = options
        self._where = Filter(stream=options.stream, until=options.until)
        self._masker = masker
        self._load = load
        self._tell = on_progress or (lambda _events, _share: None)
        self._bounds = bounds = bounds or CapsuleBounds()
        self._most = bounds.events - _ROOM
        if masker is not None:
            # How small they will be packed is known at the end.
            self._most = min(self._most, bounds.file - _ROOM_PACKED)
        self._sampler = Sampler(store, self._add, most_runs=bounds.runs // 2)
        self._stopped = asyncio.Event()
        self._first: int | None = None
        self._last: int | None = None
        self._full = False
        self._cut = False
        """Whether there were more events than are recorded."""

    @property
    def begun(self) -> bool:
        """Whether the recording has begun: what happens from now on is in it."""
        return self._sampler.moments > 0

    @property
    def beyond(self) -> list[tuple[int, int]]:
        """The runs of numbers that were seen beyond the gap at which the feed waits."""
        return self._sampler.beyond

    def stop(self) -> None:
        """Let a recording that follows end now."""
        self._stopped.set()

    async def run(self, file: IO[bytes]) -> RecordedCapsule:
        """Write the capsule to a file. Raises OrderUnknown for a store without an order, and StoreUnavailable."""
        with CapsuleWriter(file, self._masker) as self._writer:
            sampler = self._sampler
            # Before anything is read: this says why there is no order to follow, where there is none.
            await self._store.feed()
            await sampler.health()
            after, settled = await self._begin()
            until = await self._past(after) if settled is None else settled
            begun = sampler.now()
            feed = await self._store.feed(after=until, where=self._where or None, page=_PAGE)
            await sampler.look_ahead(feed)
            await self._look(sampler.consumers, sampler.tables, sampler.doctor)
            if self._options.follow is not None and not self._cut:
                await self._follow(feed, self._options.follow)
                await self._look(sampler.health, sampler.consumers, sampler.doctor)
            # What holds the feed at the end is what one may want to see: the events that wait for it belong to it.
            await self._look(lambda: sampler.look_ahead(feed))
            await self._beyond(feed.position)
            return await self._finish(after, begun, feed)

    def _add(self, name: str, value: object) -> None:
        line = encode(value)
        size = self._writer.beside_bytes(name) + len(line)
        if len(line) > self._bounds.beside or size > self._bounds.member:
            self._sampler.note(f"not all of {name} was recorded: a capsule holds no more")
            return
        self._writer.add(name, line)
        if size > self._bounds.member - _ROOM:
            self._end(f"it was ended early: a capsule holds no more of {name}")

    def _end(self, note: str) -> None:
        if not self._full:
            self._full = True
            self._sampler.notes.append(note)
            self._stopped.set()

    async def _begin(self) -> tuple[int, int | None]:
        """Return after which number events are recorded, and up to where nothing is to be read of what is there."""
        start = self._options.start
        if start is None:
            position = (await self._store.feed_from_end(where=self._where or None)).position
            return position, position
        if isinstance(start, int):
            return max(start, self._store.before_first), None
        place = await self._store.locate(Position(moment=start))
        if place.doubt is not None:
            self._sampler.notes.append(place.doubt.text)
        return (place.end if place.first is None else place.first) - 1, None

    async def _past(self, after: int) -> int:
        """Write the events that are there, up to the safe position, and return that."""
        export = await self._store.export(after=after, where=self._where or None)
        held: list[bytes] = []
        done = 0
        writing: asyncio.Future[None] | None = None
        try:
            async with contextlib.aclosing(aiter(export)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    held.append(piece)
                    if len(held) < _TOGETHER:
                        continue
                    # One is packed in a thread while the next is received; a thread that often asks for the interpreter
                    # waits for it each time.
                    if writing is not None:
                        await writing
                    if self._full:
                        self._cut = True
                        break
                    writing = asyncio.ensure_future(self._write(held, export.events - done, export.position))
                    held, done = [], export.events
                    self._tell(export.events, (export.position - after) / max(export.until - after, 1))
                    if self._stopped.is_set():
                        self._cut = True
                        break
        finally:
            if writing is not None:
                await writing
        if held and not self._cut:
            await self._write(held, export.events - done, export.position)
        if self._cut and not self._full:
            self._sampler.notes.append(f"it was ended early, at event {self._last or after:,} of what was there")
        return export.until if not self._cut or self._last is None else self._last

    async def _write(self, pieces: list[bytes], count: int, last: int) -> None:
        """Write `count` lines of events, up to the number `last`."""
        self._first = _number(pieces[0]) if self._first is None else self._first
        self._last = last
        if any(len(piece) > self._bounds.line for piece in pieces):
            self._check_lines(pieces)
        writer = self._writer
        await asyncio.to_thread(lambda: writer.events(b"".join(pieces), count))
        if (
            writer.event_bytes > self._most
            or writer.event_count > self._bounds.lines - _ROOM_LINES
            or writer.packed_bytes > self._bounds.file - _ROOM_PACKED
        ):
            self._end(f"it ends at event {last:,}: a capsule holds no more")

    def _check_lines(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            for line in piece.split(b"\n"):
                if len(line) > self._bounds.line:
                    raise EventTooLarge(
                        f"event {_number(line):,} has {len(line):,} bytes, and a line of a capsule at most "
                        f"{self._bounds.line:,}: record a slice without its stream, or from behind it on"
                    )

    async def _write_events(self, events: Sequence[Event], first_in_stream: int) -> None:
        text = "".join(f"{event.to_json(first=first_in_stream)}\n" for event in events)
        await self._write([text.encode()], len(events), events[-1].global_seq)

    async def _follow(self, feed: Feed, seconds: float) -> None:
        """Write the events of the feed as they come, and look at the store now and then."""
        feed.on_change = lambda: self._sampler.changed(feed)
        first = await self._store.first_version()
        tasks = [
            asyncio.create_task(self._take(feed, first), name="esx-record"),
            asyncio.create_task(self._watch(feed), name="esx-watch"),
            asyncio.create_task(self._stopped.wait(), name="esx-stop"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            feed.on_change = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._sampler.flush()
        for task in done:
            error = task.exception()
            if isinstance(error, EsxError):
                # What was recorded until then is what the user wants to see.
                self._sampler.notes.append(f"the feed ended before the recording: {error}")
            elif error is not None:
                raise error

    async def _take(self, feed: Feed, first: int) -> None:
        async with contextlib.aclosing(feed.follow()) as batches:
            async for batch in batches:
                # Noted with its events or not at all: the end may come between the two.
                if batch.events:
                    writing = asyncio.ensure_future(self._write_events(batch.events, first))
                    try:
                        await asyncio.shield(writing)
                    except asyncio.CancelledError:
                        await writing
                        self._sampler.take(batch, feed)
                        raise
                self._sampler.take(batch, feed)
                self._tell(self._writer.event_count, None)
                if self._full:
                    return

    async def _watch(self, feed: Feed) -> None:
        sampler = self._sampler
        consumers = health = looked = time.monotonic()
        held: Gap | None = None
        while True:
            await asyncio.sleep(_TICK)
            sampler.flush()
            now = time.monotonic()
            before, held = held, feed.gap
            # Not for those that come and go with every commit.
            stays = held is not None and before is not None and held.first == before.first
            if stays and now - looked >= _LOOK_EVERY:
                looked = now
                await self._look(lambda: sampler.look_ahead(feed))
            if now - consumers >= _CONSUMERS_EVERY:
                consumers = now
                await self._look(sampler.consumers)
            if now - health >= _HEALTH_EVERY:
                health = now
                await self._look(sampler.health)
            self._tell(self._writer.event_count, None)

    async def _look(self, *looks: Callable[[], Awaitable[None]]) -> None:
        """Look at the store; what it does not say is noted, and while it is away, the feed says so."""
        for look in looks:
            try:
                await look()
            except StoreUnavailable:
                pass
            except EsxError as error:
                self._sampler.note(f"not all could be seen: {error}")

    async def _beyond(self, position: int) -> None:
        """Write the events that are visible beyond the safe position, which wait for a gap to be filled."""
        first = await self._store.first_version()
        with contextlib.suppress(StoreUnavailable):
            async for events in self._visible(position):
                if self._full or self._cut:
                    return
                if events:
                    await self._write_events(events, first)

    async def _visible(self, position: int) -> AsyncIterator[list[Event]]:
        if self._where:
            plan = await self._store.plan_search(Filter(stream=self._where.stream), until=self._where.until)
            async for part in self._store.search(plan, start=position + 1):
                yield part.events
            return
        while page := await self._store.read_all_page(position=position, limit=_PAGE):
            yield page
            position = page[-1].global_seq

    async def _finish(self, after: int, begun: datetime, feed: Feed) -> RecordedCapsule:
        sampler, writer, options = self._sampler, self._writer, self._options
        ended = sampler.now()
        since = options.start if isinstance(options.start, datetime) else begun if options.start is None else None
        seconds = await asyncio.to_thread(self._load, since or begun, ended)
        for second in sorted(seconds, key=lambda each: each.at):
            self._add(LOAD, second)
        store = self._store
        place = await self._place()
        members = await asyncio.to_thread(writer.members)
        info = CapsuleInfo(
            format=FORMAT,
            esx=__version__,
            server=place[1],
            database=place[0],
            store=store.foreign or "esx",
            begun=begun,
            ended=ended,
            since=since,
            after=max(after, -1),
            until=max(feed.position, -1),
            followed=options.follow is not None,
            filter=options.stream,
            masks=() if self._masker is None else self._masker.paths,
            masked_ids=self._masker is not None and self._masker.ids,
            masked=0 if self._masker is None else self._masker.masked,
            events=writer.event_count,
            first=self._first,
            last=self._last,
            notes=tuple(sampler.notes),
            members=members,
            first_in_stream=await store.first_version(),
        )
        await asyncio.to_thread(writer.finish, info)
        return RecordedCapsule(info, sampler.moments, self._full)

    async def _place(self) -> tuple[str, str]:
        try:
            place = await self._store.place()
        except StoreUnavailable:
            return "", ""
        return place.database, place.server_version


def _number(piece: bytes) -> int:
    """Return the global_seq of the first of some lines."""
    return int(piece[piece.index(b":") + 1 : piece.index(b",")])


def told(recorded: RecordedCapsule) -> str:
    """Return what was recorded, in a line."""
    info = recorded.info
    span = f", {info.first:,} to {info.last:,}" if info.first is not None and info.last is not None else ""
    return f"{counted(info.events, 'event')}{span}, and {counted(recorded.moments, 'moment')} of the feed"

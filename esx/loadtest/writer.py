"""What one user does, in plain asyncio: pick a stream, read its version, decide, append; and again after a conflict."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from uuid import UUID

from esx.capsule.appends import read_appends
from esx.errors import EsxError, OutcomeUnknown, WrongVersion
from esx.eventstore import EventStore
from esx.expected import ANY, NO_STREAM, ExpectedVersion
from esx.load.learn.profile import read_profile
from esx.load.ledger import EventIds, Ledger
from esx.load.model import LoadOptions, run_prefix
from esx.loadtest.draws import Heat, Payloads, Schedule, source
from esx.loadtest.mix import AppendDraw, BurstySchedule, Mix
from esx.loadtest.outcomes import OUTCOMES, Outcomes
from esx.loadtest.replay import RecordedAppends
from esx.model import JsonText, NewEvent, Strategy
from esx.store.appenders.protocol import Acknowledged, Conflict, StreamAppender

_EVENT_TYPE = "LoadTested"
_AFTER_FAILURE = (0.2, 1.0)
_BACKOFF_FIRST = 0.002
_BACKOFF_LAST = 0.25
_SUCCESS, _CONFLICT, _ERROR, _UNKNOWN = range(len(OUTCOMES))
_STORED, _REFUSED, _FAILED, _SPENT = "stored", "refused", "failed", "spent"


class Workshop:
    """What all writers of a process share. It belongs to the event loop's thread once they run."""

    def __init__(
        self,
        store: EventStore,
        run: str,
        options: LoadOptions,
        outcomes: Outcomes,
        budget: int,
        appender: StreamAppender | None = None,
    ) -> None:
        self.store = store
        self.appender: StreamAppender = store if appender is None else appender
        self.run = run
        self.prefix = run_prefix(run)
        self.options = options
        self.outcomes = outcomes
        self.ledger = Ledger()
        self.ids = EventIds()
        self.heat = Heat(options)
        self.mix: Mix | None = None
        """What is drawn in place of the streams of `heat`, if the run is like a store that was learned."""
        if options.like is not None:
            seed = run if options.seed is None else str(options.seed)
            counted = options.warm_up, options.warm_up + options.duration
            self.mix = Mix(read_profile(options.like), seed, counted)
        self.replay = None if options.replay is None else RecordedAppends(read_appends(options.replay), options.times)
        """What is sent in place of what is drawn."""
        self.left = budget
        """How many appends may still be begun."""
        self.in_flight = 0
        self.last_ended = 0
        """When the last append ended, with any outcome; on the clock of `time.perf_counter_ns`."""
        self.lines: dict[int, WriterQueue] = {}
        self.counted_from = 0
        """Commands that begin earlier are not counted; on the clock of `time.perf_counter_ns`."""
        self.until = 0
        """No command begins later: Locust stops users one by one, and the last would have the store alone."""
        self.began = 0
        """When the run began; on the clock of `time.perf_counter_ns`."""
        self.begin()

    def begin(self) -> None:
        """Start the clock."""
        self.began = time.perf_counter_ns()
        self.counted_from = self.began + int(self.options.warm_up * 1e9)
        self.until = self.counted_from + int(self.options.duration * 1e9)

    @contextlib.asynccontextmanager
    async def turn(self, stream: int) -> AsyncIterator[WriterQueue]:
        """Queue for a stream: within the ``async with`` no other writer of this process appends to it."""
        line = self.lines.setdefault(stream, WriterQueue())
        line.members += 1
        try:
            async with line.turn:
                yield line
        finally:
            line.members -= 1
            if not line.members:
                del self.lines[stream]

    @property
    def spent(self) -> bool:
        """Whether all appends that were allowed have been made."""
        return (self.left <= 0 and not self.in_flight) or (self.replay is not None and self.replay.done)

    def close(self) -> Ledger:
        """Return the ledger, complete once no writer is at work any more."""
        self.ledger.issued = {self.ids.base: self.ids.issued}
        self.ledger.recording = self.store.recording
        return self.ledger


@dataclass(slots=True)
class Command:
    """One command: where it appends, when it was due and when it began, and how many tries are left."""

    stream: int
    stream_id: str
    due: int
    counts: bool
    tries_left: int
    began: int
    conflicts: int = 0
    locks: bool = False
    draw: AppendDraw | None = None
    """What to append, if the run is like a store that was learned."""


class WriterQueue:
    """The writers of one process that take turns at a stream; `version` is that after the last one, if known."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.members = 0
        self.version: int | None = None


class LoadWriter:
    """One user. `number` is unique among the users of the run, `share` is its part of the intended rate."""

    def __init__(self, workshop: Workshop, number: object, share: float, stopping: Callable[[], bool]) -> None:
        options = workshop.options
        self._shop = workshop
        self._options = options
        self._store = workshop.store
        self._append, self._version = workshop.appender.append, workshop.appender.version
        self._stopping = stopping
        seed = options.seed
        self._random = source(seed, number, "pauses")
        self._pick = workshop.heat.picker(source(seed, number, "streams").random)
        mix = workshop.mix
        self._draw = None if mix is None else mix.drawer(source(seed, number, "appends"))
        largest = options.payload_bytes if mix is None else mix.largest
        self._payloads = Payloads(largest, source(seed, number, "payloads"))
        self._metadata = JsonText(f'{{"run_id":"{workshop.run}","user_id":"writer-{number}"}}')
        self._made = 0
        self._exact = options.expected == "exact"
        self._expected: ExpectedVersion = NO_STREAM if options.expected == "none" else ANY
        self._strategy = Strategy(options.strategy)
        self._locks = self._exact and self._strategy is Strategy.ROW_LOCK
        self._takes_turns = options.on_conflict == "single-writer" and self._exact
        self._tries = 1 if options.on_conflict == "give-up" else options.max_tries
        self._taken: AppendDraw | None = None
        self.schedule: Schedule | BurstySchedule | None = None
        if options.rate is not None and workshop.replay is None:
            times, rate = source(seed, number, "times"), options.rate * share
            self.schedule = Schedule(rate, time.perf_counter_ns(), times)
            if mix is not None:
                self.schedule = BurstySchedule(rate, workshop.began, times, mix.rate_at)

    async def wait_until_due(self) -> int:
        """Return when the next command is due, once that time has come; now in a closed loop."""
        replay = self._shop.replay
        if replay is not None:
            taken = replay.take()
            after, self._taken = (0, None) if taken is None else taken
            due = time.perf_counter_ns() if taken is None else self._shop.began + after
        elif self.schedule is None:
            return time.perf_counter_ns()
        else:
            due = self.schedule.next()
        while (left := due - time.perf_counter_ns()) > 0 and not self._stopping():
            await asyncio.sleep(min(left / 1e9, 0.1))
        return due

    def thinking(self) -> float:
        """Return how many seconds to pause before the next command."""
        return self._options.think_time * self._random.uniform(0.5, 1.5)

    async def command(self, due: int) -> bool:
        """Append to some stream, trying as often as the options say; return False if nothing more may be appended."""
        now = time.perf_counter_ns()
        if now >= self._shop.until:
            return False
        replay = self._shop.replay
        if replay is None:
            return await self._command(due, now, None if self._draw is None else self._draw())
        if self._taken is None:
            return False
        try:
            return await self._command(due, now, self._taken)
        finally:
            replay.end()

    async def _command(self, due: int, now: int, draw: AppendDraw | None) -> bool:
        stream = self._pick() if draw is None else draw.stream
        counts = now >= self._shop.counted_from
        command = Command(stream, f"{self._shop.prefix}{stream}", due, counts, self._tries, now, draw=draw)
        if not self._takes_turns:
            ended = await self._attempt(command)
        else:
            # A writer that finds others in the queue joins it; the first in a queue has had a conflict.
            ended = _REFUSED if stream in self._shop.lines else await self._attempt(command, tries=1)
            if ended is _REFUSED and command.tries_left:
                async with self._shop.turn(stream) as line:
                    ended = await self._attempt(command, line=line)
        if ended is _SPENT:
            return False
        if ended is not _STORED and command.counts:
            self._shop.outcomes.command((time.perf_counter_ns() - due, -1))
        return True

    async def _attempt(self, command: Command, *, tries: int | None = None, line: WriterQueue | None = None) -> str:
        """Try up to `tries` times, or as often as is left, and return the outcome."""
        shop, outcomes, counts, stream = self._shop, self._shop.outcomes, command.counts, command.stream
        options = self._options
        for _ in range(command.tries_left if tries is None else tries):
            if shop.left <= 0:
                return _SPENT
            shop.left -= 1
            shop.in_flight += 1
            events = self._events(command.draw)
            ids = [event.event_id for event in events]
            began = time.perf_counter_ns()
            result: Acknowledged
            try:
                if command.locks or self._locks:
                    async with self._store.lock_stream(command.stream_id) as locked:
                        result = await locked.append(events)
                else:
                    expected = self._expected
                    if command.draw is not None and command.draw.begins:
                        expected = NO_STREAM
                    elif self._exact:
                        known = None if line is None else line.version
                        version = await self._version(command.stream_id) if known is None else known
                        expected = NO_STREAM if version < 0 else version
                    began = time.perf_counter_ns()
                    result = await self._append(command.stream_id, events, expected=expected, strategy=self._strategy)
            except (WrongVersion, Conflict):
                shop.left += 1
                if counts:
                    outcomes.conflict((stream, time.perf_counter_ns() - began))
                    shop.ledger.record(stream).conflicts += 1
                else:
                    outcomes.warm_up[_CONFLICT] += 1
            except EsxError as error:
                self._failed(error, counts, began, stream, ids)
                await asyncio.sleep(self._random.uniform(*_AFTER_FAILURE))
                return _FAILED
            except (Exception, asyncio.CancelledError) as error:
                self._lost(f"cut off: {error!r}", counts, began, stream, ids)
                raise
            else:
                now = time.perf_counter_ns()
                if line is not None:
                    line.version = result.version
                record = shop.ledger.stored(stream, result.version, ids)
                if counts:
                    outcomes.success((stream, now - began))
                    outcomes.command((now - command.due, now - command.began))
                    record.successes += 1
                else:
                    outcomes.warm_up[_SUCCESS] += 1
                return _STORED
            finally:
                shop.in_flight -= 1
                shop.last_ended = time.perf_counter_ns()
            if line is not None:
                line.version = None
            command.tries_left -= 1
            if not command.tries_left or self._stopping():
                break
            if options.on_conflict == "backoff":
                await asyncio.sleep(
                    self._random.uniform(0, min(_BACKOFF_LAST, _BACKOFF_FIRST * 2.0**command.conflicts))
                )
            command.conflicts += 1
            command.locks = options.on_conflict == "queue" and self._exact
        return _REFUSED

    def _events(self, draw: AppendDraw | None) -> list[NewEvent]:
        ids, payloads = self._shop.ids, self._payloads
        wanted = [(_EVENT_TYPE, None)] * self._options.events_per_append if draw is None else draw.events
        events = []
        for event_type, given in wanted:
            self._made += 1
            data = given if isinstance(given, JsonText) else payloads.next(self._made, given)
            events.append(NewEvent(event_type, data, self._metadata, ids.next()))
        return events

    def _failed(self, error: EsxError, counts: bool, began: int, stream: int, ids: list[UUID]) -> None:
        if isinstance(error, OutcomeUnknown):
            self._lost(str(error), counts, began, stream, ids)
            return
        self._shop.left += 1
        if counts:
            self._shop.outcomes.error(time.perf_counter_ns() - began, str(error))
        else:
            self._shop.outcomes.warm_up[_ERROR] += 1

    def _lost(self, why: str, counts: bool, began: int, stream: int, ids: list[UUID]) -> None:
        self._shop.ledger.lost_sight(stream, ids)
        if counts:
            self._shop.outcomes.unknown(time.perf_counter_ns() - began, why)
        else:
            self._shop.outcomes.warm_up[_UNKNOWN] += 1

"""What one user does: pick a stream, read its version, decide, append; and what it does after a conflict.

Plain asyncio: nothing here knows Locust.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esx.load.ledger import EventIds, Ledger
from esx.load.model import run_prefix
from esx.loadtest.draws import Heat, Payloads, Schedule, source
from esx.loadtest.outcomes import OUTCOMES, Outcomes
from esx.store import ANY, NO_STREAM, EsxError, JsonText, NewEvent, OutcomeUnknown, Strategy, WrongVersion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from uuid import UUID

    from esx.load.model import LoadOptions
    from esx.store import EventStore, ExpectedVersion

_EVENT_TYPE = "LoadTested"
_AFTER_FAILURE = (0.2, 1.0)
_BACKOFF_FIRST = 0.002
_BACKOFF_LAST = 0.25
_SUCCESS, _CONFLICT, _ERROR, _UNKNOWN = range(len(OUTCOMES))
_STORED, _REFUSED, _FAILED, _SPENT = "stored", "refused", "failed", "spent"


class Workshop:
    """What all writers of a process share. It belongs to the event loop's thread once they run."""

    def __init__(self, store: EventStore, run: str, options: LoadOptions, outcomes: Outcomes, budget: int) -> None:
        self.store = store
        self.run = run
        self.prefix = run_prefix(run)
        self.options = options
        self.outcomes = outcomes
        self.ledger = Ledger()
        self.ids = EventIds()
        self.heat = Heat(options)
        self.left = budget
        """How many appends may still be begun."""
        self.in_flight = 0
        self.last_ended = 0
        """When the last append ended, however it did; on the clock of `time.perf_counter_ns`."""
        self.lines: dict[int, Line] = {}
        self.counted_from = 0
        """Commands begun before that are not counted; on the clock of `time.perf_counter_ns`."""
        self.until = 0
        """No command begins after that: users are taken down one by one, and the last would have the store alone."""
        self.begin()

    def begin(self) -> None:
        """Let the clock run from now on."""
        self.counted_from = time.perf_counter_ns() + int(self.options.warm_up * 1e9)
        self.until = self.counted_from + int(self.options.duration * 1e9)

    @contextlib.asynccontextmanager
    async def turn(self, stream: int) -> AsyncIterator[Line]:
        """Line up for a stream, and have it to oneself in this process for the length of an ``async with``."""
        line = self.lines.setdefault(stream, Line())
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
        return self.left <= 0 and not self.in_flight

    def close(self) -> Ledger:
        """Return the ledger, complete once no writer is at work any more."""
        self.ledger.issued = {self.ids.base: self.ids.issued}
        return self.ledger


@dataclass(slots=True)
class Command:
    """One command: where it appends, when it was due and begun, and what is left to try."""

    stream: int
    stream_id: str
    due: int
    counts: bool
    tries_left: int
    began: int
    conflicts: int = 0
    locks: bool = False


class Line:
    """The writers of one process that take turns at a stream; `version` is what the last one left, if it is known."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.members = 0
        self.version: int | None = None


class Writer:
    """One user. `number` is its own among all users of the run, `share` its part of the intended rate."""

    def __init__(self, workshop: Workshop, number: object, share: float, stopping: Callable[[], bool]) -> None:
        options = workshop.options
        self._shop = workshop
        self._options = options
        self._store = workshop.store
        self._stopping = stopping
        seed = options.seed
        self._random = source(seed, number, "pauses")
        self._pick = workshop.heat.picker(source(seed, number, "streams").random)
        self._payloads = Payloads(options.payload_bytes, source(seed, number, "payloads"))
        self._metadata = JsonText(f'{{"run_id":"{workshop.run}","user_id":"writer-{number}"}}')
        self._made = 0
        self._exact = options.expected == "exact"
        self._expected: ExpectedVersion = NO_STREAM if options.expected == "none" else ANY
        self._strategy = Strategy(options.strategy)
        self._locks = self._exact and self._strategy is Strategy.ROW_LOCK
        self._takes_turns = options.on_conflict == "single-writer" and self._exact
        self._tries = 1 if options.on_conflict == "give-up" else options.max_tries
        self.schedule: Schedule | None = None
        if options.rate is not None:
            self.schedule = Schedule(options.rate * share, time.perf_counter_ns(), source(seed, number, "times"))

    async def wait_until_due(self) -> int:
        """Return when the next command is due, once that time has come; now in a closed loop."""
        if self.schedule is None:
            return time.perf_counter_ns()
        due = self.schedule.next()
        while (left := due - time.perf_counter_ns()) > 0 and not self._stopping():
            await asyncio.sleep(min(left / 1e9, 0.1))
        return due

    def thinking(self) -> float:
        """Return how many seconds to pause before the next command."""
        return self._options.think_time * self._random.uniform(0.5, 1.5)

    async def command(self, due: int) -> bool:
        """Append to some stream, trying as often as the options say; return False if nothing more may be appended."""
        stream = self._pick()
        now = time.perf_counter_ns()
        if now >= self._shop.until:
            return False
        counts = now >= self._shop.counted_from
        command = Command(stream, f"{self._shop.prefix}{stream}", due, counts, self._tries, now)
        if not self._takes_turns:
            ended = await self._attempt(command)
        else:
            # Whoever finds others in line joins them; the first to line up has met a conflict.
            ended = _REFUSED if stream in self._shop.lines else await self._attempt(command, tries=1)
            if ended is _REFUSED and command.tries_left:
                async with self._shop.turn(stream) as line:
                    ended = await self._attempt(command, line=line)
        if ended is _SPENT:
            return False
        if ended is not _STORED and command.counts:
            self._shop.outcomes.command((time.perf_counter_ns() - due, -1))
        return True

    async def _attempt(self, command: Command, *, tries: int | None = None, line: Line | None = None) -> str:
        """Try up to `tries` times, or as often as is left, and return what came of it."""
        shop, outcomes, counts, stream = self._shop, self._shop.outcomes, command.counts, command.stream
        options = self._options
        for _ in range(command.tries_left if tries is None else tries):
            if shop.left <= 0:
                return _SPENT
            shop.left -= 1
            shop.in_flight += 1
            events = self._events()
            ids = [event.event_id for event in events]
            began = time.perf_counter_ns()
            try:
                if command.locks or self._locks:
                    async with self._store.lock_stream(command.stream_id) as locked:
                        result = await locked.append(events)
                else:
                    expected = self._expected
                    if self._exact:
                        known = None if line is None else line.version
                        version = await self._store.version(command.stream_id) if known is None else known
                        expected = NO_STREAM if version < 0 else version
                    began = time.perf_counter_ns()
                    result = await self._store.append(
                        command.stream_id, events, expected=expected, strategy=self._strategy
                    )
            except WrongVersion:
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

    def _events(self) -> list[NewEvent]:
        ids, payloads = self._shop.ids, self._payloads
        events = []
        for _ in range(self._options.events_per_append):
            self._made += 1
            events.append(NewEvent(_EVENT_TYPE, payloads.next(self._made), self._metadata, ids.next()))
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
        """Note that it is not known whether an append was stored."""
        self._shop.ledger.lost_sight(stream, ids)
        if counts:
            self._shop.outcomes.unknown(time.perf_counter_ns() - began, why)
        else:
            self._shop.outcomes.warm_up[_UNKNOWN] += 1

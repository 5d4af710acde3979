"""What one user does: pick a stream, read its version, decide, append; and what it does after a conflict.

Plain asyncio: nothing here knows Locust.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from esx.load.ledger import EventIds, Ledger
from esx.load.model import run_prefix
from esx.store import ANY, NO_STREAM, EsxError, JsonText, NewEvent, OutcomeUnknown, Strategy, WrongVersion
from loadtest.draws import Heat, Payloads, Schedule, source
from loadtest.outcomes import OUTCOMES, Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from esx.load.model import LoadOptions
    from esx.store import EventStore, ExpectedVersion

_EVENT_TYPE = "LoadTested"
_AFTER_FAILURE = (0.2, 1.0)
_BACKOFF_FIRST = 0.002
_BACKOFF_LAST = 0.25
_SUCCESS, _CONFLICT, _ERROR, _UNKNOWN = range(len(OUTCOMES))


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
        self.counted_from = time.perf_counter_ns() + int(options.warm_up * 1e9)
        """Commands due before that are not counted; on the clock of `time.perf_counter_ns`."""

    @property
    def spent(self) -> bool:
        """Whether all appends that were allowed have been made."""
        return self.left <= 0 and not self.in_flight

    def close(self) -> Ledger:
        """Return the ledger, complete once no writer is at work any more."""
        self.ledger.issued = {self.ids.base: self.ids.issued}
        return self.ledger


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
        shop, outcomes = self._shop, self._shop.outcomes
        counts = due >= shop.counted_from
        stream = self._pick()
        stream_id = f"{shop.prefix}{stream}"
        queue = self._locks
        first = time.perf_counter_ns()
        for tries in range(1, self._tries + 1):
            if shop.left <= 0:
                return False
            shop.left -= 1
            shop.in_flight += 1
            events = self._events()
            ids = [event.event_id for event in events]
            began = 0
            try:
                if queue:
                    began = time.perf_counter_ns()
                    async with self._store.lock_stream(stream_id) as locked:
                        result = await locked.append(events)
                else:
                    expected = self._expected
                    if self._exact:
                        version = await self._store.version(stream_id)
                        expected = NO_STREAM if version < 0 else version
                    began = time.perf_counter_ns()
                    result = await self._store.append(stream_id, events, expected=expected, strategy=self._strategy)
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
                break
            except (Exception, asyncio.CancelledError) as error:
                self._lost(f"cut off: {error!r}", counts, began, stream, ids)
                raise
            else:
                now = time.perf_counter_ns()
                record = shop.ledger.stored(stream, result.version, ids)
                if counts:
                    outcomes.success((stream, now - began))
                    outcomes.command((now - due, now - first))
                    record.successes += 1
                else:
                    outcomes.warm_up[_SUCCESS] += 1
                return True
            finally:
                shop.in_flight -= 1
            if tries == self._tries or self._stopping():
                break
            if self._options.on_conflict == "backoff":
                await asyncio.sleep(self._random.uniform(0, min(_BACKOFF_LAST, _BACKOFF_FIRST * 2.0 ** (tries - 1))))
            queue = queue or self._options.on_conflict == "queue"
        if counts:
            outcomes.command((time.perf_counter_ns() - due, -1))
        return True

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
            self._shop.outcomes.error(_since(began), str(error))
        else:
            self._shop.outcomes.warm_up[_ERROR] += 1

    def _lost(self, why: str, counts: bool, began: int, stream: int, ids: list[UUID]) -> None:
        """Note that it is not known whether an append was stored."""
        self._shop.ledger.lost_sight(stream, ids)
        if counts:
            self._shop.outcomes.unknown(_since(began), why)
        else:
            self._shop.outcomes.warm_up[_UNKNOWN] += 1


def _since(began: int) -> int:
    return time.perf_counter_ns() - began if began else 0

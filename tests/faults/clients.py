"""Clients that append in every way there is, and write down what they were told."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from esx import (
    ANY,
    NO_STREAM,
    AppendResult,
    EsxError,
    EventIdsReused,
    InvalidEvent,
    NewEvent,
    OutcomeUnknown,
    Strategy,
    StreamAppend,
    WrongVersion,
)
from tests.faults.history import Part

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from esx import Event, EventStore
    from esx.expected import ExpectedVersion
    from tests.faults.history import Call, History

LOSS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
RAW_PATIENCE = 4.0
_HOT, _WARM = 4, 60
_INSERT = (
    "INSERT INTO events (stream_id, stream_seq, event_type, data, event_id) VALUES ($1, $2, 'Raw', '{}', $3) "
    "RETURNING global_seq"
)
_VERSION = "SELECT coalesce(max(stream_seq), -1) FROM events WHERE stream_id = $1"


class Client:
    """One task. `run` it until `stop` is set."""

    def __init__(self, number: int, seed: int, history: History, dsn: str) -> None:
        self.number = number
        self.mood = random.Random(seed * 1000 + number)
        self.history = history
        self.dsn = dsn
        self.made = 0
        self.turns = 0
        """How many times it has got on."""

    def event(self) -> NewEvent:
        return NewEvent(
            f"T{self.mood.randrange(3)}", {"by": self.number}, event_id=UUID(int=self.mood.getrandbits(128))
        )

    def events(self) -> list[NewEvent]:
        return [self.event() for _ in range(1 if self.mood.random() < 0.6 else self.mood.randint(2, 6))]

    def new_stream(self) -> str:
        self.made += 1
        return f"new-{self.number}-{self.made}"

    def stream(self) -> str:
        """Return a stream that others append to as well."""
        if self.mood.random() < 0.5:
            return f"hot-{self.mood.randrange(_HOT)}"
        return f"warm-{self.mood.randrange(_WARM)}"

    def begin(self, kind: str, *parts: tuple[str, Sequence[NewEvent], ExpectedVersion]) -> Call:
        return self.history.begin(
            kind, [Part(stream, tuple(event.event_id for event in events), by) for stream, events, by in parts]
        )

    async def run(self, stop: asyncio.Event) -> None:
        raise NotImplementedError

    async def pause(self) -> None:
        self.turns += 1
        await asyncio.sleep(self.mood.uniform(0, 0.03))


class StoreClient(Client):
    """Appends through a store."""

    def __init__(self, number: int, seed: int, history: History, dsn: str, store: EventStore) -> None:
        super().__init__(number, seed, history, dsn)
        self.store = store
        self.versions: dict[str, int] = {}
        self.cancelled = 0

    async def run(self, stop: asyncio.Event) -> None:
        ways = [self.any, self.none, self.exact, self.queue, self.several, self.decide, self.lock]
        while not stop.is_set():
            await self.mood.choices(ways, [5, 3, 5, 2, 2, 2, 2])[0]()
            await self.pause()

    async def call(
        self, call: Call, act: Callable[[], Coroutine[Any, Any, Sequence[AppendResult]]], *, may_cancel: bool = True
    ) -> None:
        """Do it, and write down what came of it; now and then it is cancelled on the way."""
        task = asyncio.create_task(act())
        try:
            if may_cancel and self.mood.random() < 0.15:
                await asyncio.wait({task}, timeout=self.mood.expovariate(200))
                self.cancelled += task.cancel()
            await asyncio.wait({task})
        finally:
            task.cancel()
        if task.cancelled():
            self.history.end(call, "unknown", error="cancelled")
            return
        error = task.exception()
        if error is None:
            self.history.end(call, "acknowledged", task.result())
            for result in task.result():
                self.versions[result.stream_id] = result.version
        else:
            self.failed(call, error)

    def failed(self, call: Call, error: BaseException) -> None:
        said = f"{type(error).__name__}: {error}"
        self.history.errors[type(error).__name__] += 1
        if not isinstance(error, EsxError) or isinstance(error, InvalidEvent | EventIdsReused):
            # An append of new events that can be stored ends in no other error than the store's.
            self.history.surprises.append(f"{call.kind} to {call.parts[0].stream_id}: {said}")
        elif isinstance(error, WrongVersion):
            self.versions[error.stream_id] = error.actual
        unknown = isinstance(error, OutcomeUnknown) or not isinstance(error, EsxError)
        self.history.end(call, "unknown" if unknown else "refused", error=said)

    async def append(
        self, kind: str, stream: str, expected: ExpectedVersion, strategy: Strategy = Strategy.CONDITIONAL
    ) -> None:
        events = self.events()
        call = self.begin(kind, (stream, events, expected))

        async def act() -> list[AppendResult]:
            return [await self.store.append(stream, events, expected=expected, strategy=strategy)]

        await self.call(call, act)

    async def any(self) -> None:
        await self.append("any", self.stream(), ANY)

    async def none(self) -> None:
        await self.append("none", self.stream() if self.mood.random() < 0.2 else self.new_stream(), NO_STREAM)

    async def exact(self) -> None:
        await self.append("exact", *self.known())

    def known(self) -> tuple[str, ExpectedVersion]:
        """Return a stream, often one of a few clients, and where it was when last heard of."""
        stream = self.stream() if self.mood.random() < 0.4 else f"few-{self.number % 8}-{self.mood.randrange(10)}"
        version = self.versions.get(stream, -1)
        return stream, NO_STREAM if version < 0 else version

    async def queue(self) -> None:
        stream, expected = self.known()
        await self.append("row lock", stream, ANY if self.mood.random() < 0.7 else expected, Strategy.ROW_LOCK)

    async def several(self) -> None:
        streams = {self.stream() for _ in range(self.mood.randint(2, 3))} | {self.new_stream()}
        any_version = self.mood.random() < 0.5
        parts = []
        for stream in self.mood.sample(sorted(streams), len(streams)):
            expected: ExpectedVersion = self.versions.get(stream, -1)
            expected = ANY if any_version else NO_STREAM if expected == -1 else expected
            parts.append(StreamAppend(stream, self.events(), expected))
        call = self.begin("several", *((part.stream_id, part.events, part.expected) for part in parts))
        await self.call(call, lambda: self.store.append_to_streams(parts))

    async def decide(self) -> None:
        """Decide anew at each conflict, with events of its own each time."""
        stream = self.stream() if self.mood.random() < 0.3 else f"decided-{self.number}-{self.mood.randrange(5)}"
        calls: list[Call] = []

        def decision(history: list[Event]) -> list[NewEvent]:
            if calls:
                self.history.end(calls[-1], "refused", error="WrongVersion, and decided anew")
            events = self.events()
            calls.append(self.begin("decide", (stream, events, history[-1].stream_seq if history else NO_STREAM)))
            return events

        async def act() -> list[AppendResult]:
            result = await self.store.decide(stream, decision, attempts=4)
            assert result is not None
            return [result]

        # For the time before the first decision.
        await self.call(reading := self.begin("read", (stream, (), ANY)), act)
        if calls:
            last = calls[-1]
            self.history.end(last, reading.outcome, reading.results, reading.error)
        self.history.calls.remove(reading)

    async def lock(self) -> None:
        stream, one, other = self.stream(), self.events(), self.events()
        pause = self.mood.uniform(0, 0.02) if self.mood.random() < 0.3 else 0.0
        call = self.begin("lock", (stream, [*one, *other], ANY))

        async def act() -> list[AppendResult]:
            async with self.store.lock_stream(stream) as locked:
                await locked.append(one)
                if pause:
                    await asyncio.sleep(pause)
                result = await locked.append(other)
            return [result]

        await self.call(call, act)


class RawClient(Client):
    """Writes with SQL of its own, in transactions that pause and sometimes roll back."""

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                connection = await asyncpg.connect(self.dsn, timeout=RAW_PATIENCE, command_timeout=RAW_PATIENCE)
            except LOSS:
                await self.pause()
                continue
            try:
                while not stop.is_set():
                    await self.transact(connection)
                    await self.pause()
            except LOSS:
                continue
            finally:
                connection.terminate()

    async def transact(self, connection: asyncpg.Connection) -> None:
        stream = self.stream() if self.mood.random() < 0.2 else f"raw-{self.number}"
        events = self.events()
        transaction = connection.transaction()
        await transaction.start()
        version = await connection.fetchval(_VERSION, stream)
        call = self.begin("raw", (stream, events, ANY))
        number = 0
        try:
            for place, event in enumerate(events, version + 1):
                number = await connection.fetchval(_INSERT, stream, place, event.event_id)
                if self.mood.random() < 0.2:
                    await asyncio.sleep(self.mood.uniform(0, 0.05))
            if self.mood.random() < 0.1:
                await asyncio.sleep(0.3)
            gives_up = self.mood.random() < 0.3
            if gives_up:
                await transaction.rollback()
        except asyncpg.UniqueViolationError:
            self.history.end(call, "refused", error="somebody was faster")
            await transaction.rollback()
            return
        except LOSS as error:
            # Nobody has asked for its commit, so it cannot have been committed.
            self.history.end(call, "refused", error=f"{type(error).__name__} before the commit")
            raise
        if gives_up:
            self.history.end(call, "refused", error="rolled back")
            return
        await commit(self.history, call, transaction, AppendResult(stream, version + len(events), number))


async def commit(
    history: History, call: Call, transaction: asyncpg.transaction.Transaction, result: AppendResult
) -> None:
    """Commit, and write down what came of that."""
    try:
        await transaction.commit()
    except BaseException as error:
        history.end(call, "unknown", error=f"{type(error).__name__} at the commit")
        raise
    history.end(call, "acknowledged", [result])


class SlowWriter:
    """Writes one event, and commits when it is told to: what came after it in the meantime has a higher number."""

    def __init__(self, history: History, stream: str, mood: random.Random) -> None:
        self.event_id = UUID(int=mood.getrandbits(128))
        self._history = history
        self._stream = stream
        self._call: Call | None = None

    async def write(self, connection: asyncpg.Connection) -> Callable[[], Awaitable[None]]:
        """Return what commits."""
        transaction = connection.transaction()
        await transaction.start()
        call = self._history.begin("slow", [Part(self._stream, (self.event_id,), NO_STREAM)])
        number = await connection.fetchval(_INSERT, self._stream, 0, self.event_id)
        return lambda: commit(self._history, call, transaction, AppendResult(self._stream, 0, number))

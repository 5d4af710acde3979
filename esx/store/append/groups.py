"""Appends of many tasks in one statement and one commit.

An append that finds nothing under way is sent at once, by itself. While one is under way, others queue; when its commit
has returned, all that wait go together. Many go in two
groups beside each other. No append waits for a timer.

Appends to one stream are sent in the order in which they were called, and each waits for the outcome of the one before.
What a group cannot answer, such as a refused event or a lock that somebody holds, is sent by itself, by the task that
asked for it, and tells no other append. Only its stream waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from esx.errors import EsxError
from esx.expected import ExpectedVersion
from esx.model import AppendResult, NewEvent
from esx.postgres.background import tell_failure
from esx.store.append.refusals import EventRow
from esx.store.append.versions import accepted, refused


class Alone(NamedTuple):
    """The answer that an append has to be sent by itself; after `lost` it may have been stored already."""

    lost: EsxError | None = None


@dataclass(slots=True, eq=False)
class Queued:
    """An append that waits, or that is in the group under way."""

    stream_id: str
    events: Sequence[NewEvent]
    expected: ExpectedVersion
    lowest: int
    highest: int
    answer: asyncio.Future[AppendResult | Alone]
    rows: Sequence[EventRow] | None = None
    """What is sent of its events; None until it is made."""
    size: int = 0
    """How many characters `rows` have."""
    by_itself: Alone | None = None
    """Set if it must not be in a group."""


class Members(NamedTuple):
    """The appends of a group to one stream, in the order of their calls, and how many of the first have an answer."""

    stream_id: str
    appends: list[Queued]


@dataclass(frozen=True)
class GroupLimits:
    """How large groups are, and how long they wait.

    A group ends with the append that brings it to `events` or `size` (in characters of JSON). `large` (of the same) is
    what one append in a group may have. So many characters are made beforehand for what waits, `ahead`. After
    `patience` seconds an append that was sent by itself is no longer waited for.

    Up to `beside` groups are under way at once, so that the client makes one while the server works on another: then
    each takes its part of the streams, at least `least`. No two of them have a stream in common.
    """

    events: int = 1000
    size: int = 4_000_000
    large: int = 256_000
    ahead: int = 16_000_000
    patience: float = 0.05
    beside: int = 2
    least: int = 8


class Groups:
    """Queues the appends of a store's tasks, and sends them in groups.

    `send` sends the members of a group, answers each append or leaves it without an answer, and raises nothing;
    `encode` makes the rows of an append, or raises what is wrong with its events.
    """

    def __init__(
        self,
        send: Callable[[list[Members]], Awaitable[None]],
        encode: Callable[[str, Sequence[NewEvent]], Sequence[EventRow]],
        limits: GroupLimits | None = None,
    ) -> None:
        self._send = send
        self._encode = encode
        self._limits = limits or GroupLimits()
        self._waiting: dict[str, deque[Queued]] = {}
        # Streams with waiting appends of which none is under way, in the order of their calls.
        self._ready: deque[str] = deque()
        self._under_way: set[str] = set()
        self._senders: set[asyncio.Task[None]] = set()
        # How many groups are under way.
        self._sending = 0
        # The append that was sent by itself and that others wait for.
        self._single: object | None = None
        self._overtaking: asyncio.TimerHandle | None = None
        self._ahead = 0

    async def append(
        self,
        stream_id: str,
        events: Sequence[NewEvent],
        expected: ExpectedVersion,
        by_itself: Callable[[EsxError | None], Awaitable[AppendResult]],
    ) -> AppendResult:
        """Append in a group, or with `by_itself`; after the error given to that it may have been stored already."""
        if self._single is None and not self._senders and stream_id not in self._under_way:
            self._single = token = object()
            self._under_way.add(stream_id)
            return await self._run(stream_id, events, token, by_itself, None)
        queued = self._queue(stream_id, events, expected)
        try:
            answer = await queued.answer
        except asyncio.CancelledError:
            if _is_alone(queued.answer):
                self._ended(stream_id, queued)
            raise
        if isinstance(answer, Alone):
            return await self._run(stream_id, events, queued, by_itself, answer.lost)
        return answer

    async def _run(
        self,
        stream_id: str,
        events: Sequence[NewEvent],
        token: object,
        by_itself: Callable[[EsxError | None], Awaitable[AppendResult]],
        lost: EsxError | None,
    ) -> AppendResult:
        ids = [event.event_id for event in events]
        losers = False
        try:
            done = await by_itself(lost)
            losers = lost is None and self._refuse(done, ids)
        finally:
            self._ended(stream_id, token)
        if losers:
            # They go first: else who has won, and knows the new version before all others, would win again and again.
            await asyncio.sleep(0)
        return done

    def _refuse(self, done: AppendResult, ids: Sequence[object]) -> bool:
        """Refuse what waits for a place that was just taken by events with these ids; return whether anything did."""
        before = done.version - len(ids)
        waiting = self._waiting.get(done.stream_id)
        found = False
        while waiting:
            first = waiting[0]
            place = first.lowest - before
            if not first.answer.done():
                if first.lowest != first.highest or first.rows is None or not 0 <= place < len(ids):
                    break
                if first.rows[0][3] == ids[place]:  # perhaps it repeats what is stored
                    break
                first.answer.set_exception(refused(done.stream_id, first.expected, done.version))
                found = True
            self._forget(waiting.popleft())
        return found

    def _ended(self, stream_id: str, token: object) -> None:
        """Note that an append that was sent by itself has ended."""
        if self._single is token:
            self._release()
        self._free(stream_id)
        self._wake()

    async def ended(self) -> None:
        """Wait until the group under way, and all that waits, has an answer."""
        while self._senders:
            await asyncio.wait(self._senders)

    # -- the queue ---------------------------------------------------------------------------------------------

    def _queue(self, stream_id: str, events: Sequence[NewEvent], expected: ExpectedVersion) -> Queued:
        queued = Queued(stream_id, events, expected, *accepted(expected), asyncio.get_running_loop().create_future())
        if self._ahead < self._limits.ahead:
            self._prepare(queued)
            self._ahead += queued.size
        waiting = self._waiting.get(stream_id)
        if waiting is None:
            waiting = self._waiting[stream_id] = deque()
            if stream_id not in self._under_way:
                self._ready.append(stream_id)
        waiting.append(queued)
        if self._single is not None and self._overtaking is None:
            self._overtaking = asyncio.get_running_loop().call_later(self._limits.patience, self._overtake)
        self._wake()
        return queued

    def _prepare(self, queued: Queued) -> None:
        """Make the rows of an append while others are under way. Raises what is wrong with its events."""
        queued.rows = self._encode(queued.stream_id, queued.events)
        for _, data, metadata, _ in queued.rows:
            queued.size += len(data) if metadata is None else len(data) + len(metadata)
        if queued.size > self._limits.large or len(queued.rows) > self._limits.events:
            queued.by_itself = Alone()

    def _overtake(self) -> None:
        """Wait no longer for an append that was sent by itself."""
        self._release()
        self._wake()

    def _release(self) -> None:
        self._single = None
        if self._overtaking is not None:
            self._overtaking.cancel()
            self._overtaking = None

    def _free(self, stream_id: str) -> None:
        """Note that no append to the stream is under way: the next one can go."""
        waiting = self._waiting.get(stream_id)
        while waiting and waiting[0].answer.done():  # its caller has gone
            self._forget(waiting.popleft())
        if not waiting:
            self._waiting.pop(stream_id, None)
            self._under_way.discard(stream_id)
        elif waiting[0].by_itself is not None:
            self._under_way.add(stream_id)
            self._let_go(waiting.popleft())
        else:
            self._under_way.discard(stream_id)
            self._ready.append(stream_id)

    def _let_go(self, queued: Queued) -> None:
        """Let its caller send it by itself."""
        self._forget(queued)
        queued.answer.set_result(queued.by_itself or Alone())

    def _forget(self, queued: Queued) -> None:
        if queued.rows is not None:
            self._ahead -= queued.size

    # -- groups ------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._ready or self._single is not None:
            return
        if not self._senders or (len(self._senders) < self._limits.beside and len(self._ready) >= self._limits.least):
            sender = asyncio.create_task(self._send_groups(), name="esx-appends")
            self._senders.add(sender)
            sender.add_done_callback(self._stopped)

    def _stopped(self, sender: asyncio.Task[None]) -> None:
        tell_failure(sender)
        self._senders.discard(sender)
        self._wake()

    async def _send_groups(self) -> None:
        while True:
            group = self._take()
            if not group:
                # Those that have just got an answer may append again.
                await asyncio.sleep(0)
                group = self._take()
            if not group:
                return
            if len(group) == 1 and len(group[0].appends) == 1 and not self._ready:
                # As a group of one is an append by itself, its caller sends it.
                [queued] = group[0].appends
                self._single = queued
                queued.answer.set_result(Alone())
                return
            self._sending += 1
            self._wake()
            try:
                await self._send(group)
            except BaseException as error:
                for members in group:
                    for each in members.appends:
                        if not each.answer.done():
                            each.answer.set_exception(error) if isinstance(error, Exception) else each.answer.cancel()
                raise
            finally:
                self._sending -= 1
                for members in group:
                    self._settle(members)

    def _take(self) -> list[Members]:
        """Take what goes together next out of the queues."""
        group: list[Members] = []
        events, size = self._limits.events, self._limits.size
        streams = len(self._ready)
        if not self._sending and streams >= self._limits.beside * self._limits.least:
            streams = -(-streams // self._limits.beside)  # the rest goes beside it
        for _ in range(streams):
            if events <= 0 or size <= 0:
                break
            stream_id = self._ready.popleft()
            taken: list[Queued] = []
            ranged = False
            waiting = self._waiting[stream_id]
            while waiting and events > 0 and size > 0 and self._may_join(waiting):
                if waiting[0].lowest < waiting[0].highest:
                    if ranged and taken[-1].lowest == taken[-1].highest:
                        break  # if the first of these is stored, this one would only be sent again
                    ranged = True
                queued = waiting.popleft()
                self._forget(queued)
                taken.append(queued)
                events -= len(queued.rows or ())
                size -= queued.size
            if taken:
                self._under_way.add(stream_id)
                group.append(Members(stream_id, taken))
            else:
                self._free(stream_id)
        return group

    def _may_join(self, waiting: deque[Queued]) -> bool:
        """Return whether the first that waits can be in a group, after leaving out those before it that cannot."""
        while waiting:
            first = waiting[0]
            if first.answer.done():
                self._forget(waiting.popleft())
                continue
            if first.rows is None:
                try:
                    self._prepare(first)
                except Exception as error:
                    first.answer.set_exception(error)
                    waiting.popleft()
                    continue
                self._ahead += first.size
            return first.by_itself is None
        return False

    def _settle(self, members: Members) -> None:
        """Queue again what a group has not answered, before what came later."""
        if open_ := [each for each in members.appends if not each.answer.done()]:
            waiting = self._waiting.setdefault(members.stream_id, deque())
            waiting.extendleft(reversed(open_))
            self._ahead += sum(each.size for each in open_)
        self._free(members.stream_id)


def _is_alone(answer: asyncio.Future[AppendResult | Alone]) -> bool:
    if not answer.done() or answer.cancelled() or answer.exception() is not None:
        return False
    return isinstance(answer.result(), Alone)

"""Events that a target refuses, put aside: the rest goes on, the order within a stream holds, nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx import EventRefused, EventStore, NewEvent, RelayFailed
from esx.store.consume.put_aside import Aside
from tests.store.relay.test_relay import _is, running, until
from tests.support.targets import Sqlite

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import asyncpg

    from esx import Event, TargetPosition


class Picky(Sqlite):
    """Refuses events by their numbers, either when they are sent or only at the commit."""

    def __init__(self, path: Path, *poison: int, late: bool = False) -> None:
        super().__init__(path)
        self.poison = set(poison)
        self._late = late
        self._uncommitted: list[int] = []

    async def send(self, events: Sequence[Event]) -> None:
        self._uncommitted += [event.global_seq for event in events]
        if not self._late:
            self._check()
        await super().send(events)

    async def commit(self, position: TargetPosition) -> None:
        self._check()
        await super().commit(position)
        self._uncommitted.clear()

    async def abort(self) -> None:
        self._uncommitted.clear()
        await super().abort()

    def _check(self) -> None:
        if wrong := sorted(self.poison & set(self._uncommitted)):
            self._uncommitted.clear()
            raise EventRefused(wrong[0], "too large")

    def numbers(self, stream: str | None = None) -> list[int]:
        return [number for where, _, number in self.taken() if stream in (None, where)]


@pytest.fixture
async def filled(store18: EventStore) -> EventStore:
    """A store with the events 1 to 10, the odd ones in stream a, the even ones in b."""
    for _ in range(5):
        await store18.append("a", [NewEvent("T")])
        await store18.append("b", [NewEvent("T")])
    return store18


@pytest.mark.parametrize("late", [False, True])
async def test_the_refused_event_and_what_follows_in_its_stream_wait_and_the_rest_goes_on(
    filled: EventStore, tmp_path: Path, late: bool
) -> None:
    target = Picky(tmp_path / "out", 3, late=late)
    await filled.relay("r", target, on_error="park", once=True)
    assert target.numbers() == [1, 2, 4, 6, 8, 10]
    found = await filled.put_aside("r")
    assert [each.global_seq for each in found] == [3, 5, 7, 9]
    assert [each.error for each in found][:2] == ["too large", "waits for event 3"]
    await filled.append("a", [NewEvent("T")])
    await filled.append("b", [NewEvent("T")])
    await filled.relay("r", target, on_error="park", once=True)
    assert target.numbers() == [1, 2, 4, 6, 8, 10, 12]
    assert [each.global_seq for each in await filled.put_aside("r")] == [3, 5, 7, 9, 11]


async def test_tried_again_they_arrive_in_order_and_then_the_stream_flows(filled: EventStore, tmp_path: Path) -> None:
    target = Picky(tmp_path / "out", 3)
    async with running(filled.relay("r", target, on_error="park")):
        await until(lambda: _waiting(filled, 4))
        await filled.retry_events("r")
        await until(lambda: _tried(filled, 2))
        target.poison.clear()
        await filled.retry_events("r")
        await until(lambda: _waiting(filled, 0))
        await filled.append("a", [NewEvent("T")])
        await until(lambda: _is(11 in target.numbers()))
    assert target.numbers("a") == [1, 3, 5, 7, 9, 11]


async def test_without_the_skipped_event_its_stream_goes_on(filled: EventStore, tmp_path: Path) -> None:
    target = Picky(tmp_path / "out", 3, 7)
    async with running(filled.relay("r", target, on_error="park")):
        await until(lambda: _waiting(filled, 4))
        await filled.skip_event("r", 3)
        await until(lambda: _waiting(filled, 2))
        assert target.numbers("a") == [1, 5]
        await filled.skip_event("r", 7)
        await until(lambda: _waiting(filled, 0))
    assert target.numbers("a") == [1, 5, 9]
    assert [each.global_seq for each in await filled.put_aside("r")] == [3, 7]


async def test_an_event_skipped_while_it_is_refused_again_holds_nothing_up(
    filled: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed_again = Aside.failed_again

    async def after_a_skip(
        aside: Aside, connection: asyncpg.Connection, stream: str, global_seq: int, error: str
    ) -> None:
        await filled.skip_event("r", global_seq)
        await failed_again(aside, connection, stream, global_seq, error)

    monkeypatch.setattr(Aside, "failed_again", after_a_skip)
    target = Picky(tmp_path / "out", 3, 7)
    async with running(filled.relay("r", target, on_error="park")):
        await until(lambda: _waiting(filled, 4))
        await filled.skip_event("r", 3)
        await until(lambda: _waiting(filled, 0))
    assert target.numbers("a") == [1, 5, 9]
    assert [each.global_seq for each in await filled.put_aside("r")] == [3, 7]


async def test_an_event_skipped_just_before_it_is_sent_again_is_not_sent(
    filled: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Aside.read

    async def after_a_skip(aside: Aside, connection: asyncpg.Connection, numbers: Collection[int]) -> list[Event]:
        if 5 in numbers:
            await filled.skip_event("r", 5)
        return await read(aside, connection, numbers)

    target = Picky(tmp_path / "out", 3)
    async with running(filled.relay("r", target, on_error="park")):
        await until(lambda: _waiting(filled, 4))
        target.poison.clear()
        monkeypatch.setattr(Aside, "read", after_a_skip)
        await filled.retry_events("r")
        await until(lambda: _waiting(filled, 0))
    assert target.numbers("a") == [1, 3, 7, 9]
    assert [(each.global_seq, each.state) for each in await filled.put_aside("r")] == [(5, "skipped")]


async def test_an_event_left_waiting_for_nothing_by_a_crash_is_sent(
    filled: EventStore, tmp_path: Path, sql18: asyncpg.Connection
) -> None:
    target = Picky(tmp_path / "out")
    await filled.relay("r", target, on_error="park", once=True)
    await filled.append("a", [NewEvent("T")])
    await sql18.execute(
        "INSERT INTO parked_events (consumer, global_seq, stream_id, event_type, error, attempts, state) "
        "VALUES ('r', 11, 'a', 'T', 'waits for event 9', 0, 'parked')"
    )
    async with running(filled.relay("r", target, on_error="park")):
        await until(lambda: _waiting(filled, 0))
    assert target.numbers("a") == [1, 3, 5, 7, 9, 11]


async def test_a_crash_after_they_were_sent_again_does_not_send_them_twice(filled: EventStore, tmp_path: Path) -> None:
    class Crashing(Picky):
        crash = False

        async def commit(self, position: TargetPosition) -> None:
            await super().commit(position)
            if self.crash:
                raise ZeroDivisionError

    target = Crashing(tmp_path / "out", 3)
    await filled.relay("r", target, on_error="park", once=True)
    target.poison.clear()
    target.crash = True
    await filled.retry_events("r")
    with pytest.raises(ZeroDivisionError):
        await filled.relay("r", target, on_error="park", once=True)
    assert await _waiting(filled, 4)
    target.crash = False
    await filled.relay("r", target, on_error="park", once=True)
    assert await _waiting(filled, 0)
    assert target.numbers("a") == [1, 3, 5, 7, 9]


async def _waiting(store: EventStore, count: int) -> bool:
    try:
        return len(await store.put_aside("r", states=["parked", "retry"])) == count
    except Exception:
        return False


async def _tried(store: EventStore, attempts: int) -> bool:
    found = await store.put_aside("r")
    return found[0].attempts == attempts and found[0].state == "parked"


async def test_one_that_stopped_goes_on_without_the_event_that_is_skipped(filled: EventStore, tmp_path: Path) -> None:
    target = Picky(tmp_path / "out", 3)
    with pytest.raises(RelayFailed, match="stopped at event 3"):
        await filled.relay("r", target)
    assert (await filled.skip_event("r")).global_seq == 3
    await filled.relay("r", target, once=True)
    assert target.numbers() == [1, 2, 4, 5, 6, 7, 8, 9, 10]

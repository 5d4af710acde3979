"""Relays: every event arrives, in order, as often as promised, whatever ends on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from esx import (
    EventRefused,
    EventStore,
    HistoryChanged,
    InvalidQuery,
    NewEvent,
    RelayFailed,
    StoreFailed,
    TargetFailed,
    TargetPosition,
    TargetUnavailable,
)
from esx.postgres.pooler import Pooler
from tests.store.feed.test_feed import moody_writers
from tests.support.targets import Lines, Sqlite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    import asyncpg

    from esx import Event, RelayIdentity

_DEADLINE = 120.0

# Sends to SQLite, and kills itself at the commit with the given number, before or after it.
SUICIDE = """
import asyncio, os, signal, sys
from pathlib import Path
from esx import EventStore
from tests.support.targets import Sqlite

dsn, path, last, late = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "late"

class Mortal(Sqlite):
    commits = 0

    async def commit(self, position):
        self.commits += 1
        if self.commits == last and not late:
            os.kill(os.getpid(), signal.SIGKILL)
        await super().commit(position)
        if self.commits == last:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with EventStore.connect(dsn) as store:
        await store.relay("r", Mortal(path), window=20)

asyncio.run(main())
"""


async def fill(store: EventStore, streams: int, each: int) -> None:
    for number in range(each):
        for stream in range(streams):
            await store.append(f"s-{stream}", [NewEvent("T", {"n": number})])


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_DEADLINE):
        while not await true():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(relaying: Awaitable[Any]) -> AsyncIterator[asyncio.Future[Any]]:
    task = asyncio.ensure_future(relaying)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


async def row(sql: asyncpg.Connection, name: str = "r") -> asyncpg.Record:
    found = await sql.fetchrow("SELECT * FROM consumers WHERE name = $1", name)
    assert found is not None
    return found


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["global_seq"] for line in path.read_text().splitlines()] if path.exists() else []


async def test_it_catches_up_follows_and_goes_on_where_it_was(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    target = Lines(tmp_path / "out")
    await fill(store18, 3, 20)
    await store18.relay("r", target, once=True)
    assert numbers(target.path) == list(range(1, 61))
    async with running(store18.relay("r", target)):
        await store18.append("later-1", [NewEvent("T")])
        await until(lambda: is_at(sql18, 61))
    assert numbers(target.path) == list(range(1, 62))
    kept = await row(sql18)
    assert (kept["kind"], kept["last_error"]) == ("relay", None)


async def is_at(sql: asyncpg.Connection, position: int) -> bool:
    return bool((await row(sql))["position"] == position)


async def _is(fact: bool) -> bool:
    return fact


async def test_a_filter_chooses_and_the_position_passes_the_rest(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    target = Lines(tmp_path / "out")
    await fill(store18, 3, 5)
    await store18.relay("r", target, stream="s-1", once=True)
    assert len(numbers(target.path)) == 5
    assert (await row(sql18))["position"] == 15


async def test_it_begins_where_it_is_told_but_only_once(store18: EventStore, tmp_path: Path) -> None:
    await fill(store18, 1, 3)
    moment = (await anext(aiter(store18.read("s-0", start=2)))).created_at
    for name, start, first in [
        ("number", 1, [2, 3]),
        ("end", "end", []),
        ("time", moment, [3]),
        ("all", "start", [1, 2, 3]),
    ]:
        target = Lines(tmp_path / name)
        await store18.relay(name, target, start=start, once=True)  # type: ignore[arg-type]
        assert numbers(target.path) == first
    await store18.append("s-0", [NewEvent("T")])
    target = Lines(tmp_path / "end")
    await store18.relay("end", target, start=0, once=True)
    assert numbers(target.path) == [4]


async def test_what_was_not_committed_arrives_again_but_never_more_than_the_window(
    store18: EventStore, tmp_path: Path
) -> None:
    """The worst moment for a target that keeps no position: it has everything, and PostgreSQL does not know it."""

    class Crashing(Lines):
        commits = 0

        async def commit(self, position: TargetPosition) -> None:
            await super().commit(position)
            self.commits += 1
            if self.commits == 2:
                raise ZeroDivisionError

    await fill(store18, 2, 25)
    target = Crashing(tmp_path / "out")
    with pytest.raises(ZeroDivisionError):
        await store18.relay("r", target, window=10)
    await store18.relay("r", target, window=10, once=True)
    assert numbers(target.path) == [*range(1, 21), *range(11, 51)]


async def test_it_commits_after_some_time_where_sending_is_slow(store18: EventStore, tmp_path: Path) -> None:
    class Noting(Lines):
        positions: list[int]

        async def commit(self, position: TargetPosition) -> None:
            await super().commit(position)
            self.positions.append(position.position)

    await fill(store18, 2, 25)
    for name, seconds, commits in [("patient", 100.0, [50]), ("at once", 0.0, [20, 50])]:
        target = Noting(tmp_path / name)
        target.positions = []
        await store18.relay(name, target, seconds=seconds, once=True)
        # The first page has twenty events; nothing is committed for an end that is reached already.
        assert list(dict.fromkeys(target.positions)) == commits


async def test_a_target_with_the_position_gets_each_event_once_after_the_same_crash(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    class Crashing(Sqlite):
        async def commit(self, position: TargetPosition) -> None:
            await super().commit(position)
            if position.position:
                raise ZeroDivisionError

    await fill(store18, 2, 10)
    with pytest.raises(ZeroDivisionError):
        await store18.relay("r", Crashing(tmp_path / "out"), window=5)
    assert (await row(sql18))["position"] == 0  # the copy lags behind
    target = Sqlite(tmp_path / "out")
    await store18.relay("r", target, once=True)
    assert [number for *_, number in target.taken()] == list(range(1, 21))
    assert (await row(sql18))["position"] == 20


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
async def test_killed_in_the_middle_it_loses_and_repeats_nothing(
    store18: EventStore, dsn18: str, tmp_path: Path, late: bool
) -> None:
    """Writers pause and roll back, so numbers come late and stay missing; the relay dies before or after commits."""
    path = tmp_path / "out"
    writing = asyncio.create_task(moody_writers(dsn18, writers=4, transactions=40))
    for last in (2, 4):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SUICIDE, dsn18, str(path), str(last), "late" if late else "early"), cwd=os.getcwd()
        )
        assert await asyncio.wait_for(process.wait(), _DEADLINE) == -signal.SIGKILL
    await writing
    target = Sqlite(path)
    await store18.relay("r", target, once=True)
    stored = [(e.stream_id, e.stream_seq, e.global_seq) async for e in store18.read_all()]
    assert target.taken() == stored


async def test_a_target_that_is_away_is_waited_for_and_the_row_says_since_when(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    class Away(Lines):
        away = True

        async def open(self, relay: RelayIdentity) -> TargetPosition | None:
            if self.away:
                raise TargetUnavailable("no broker answers")
            return await super().open(relay)

    await fill(store18, 1, 3)
    target = Away(tmp_path / "out")
    async with running(store18.relay("r", target)):
        await until(lambda: _has(sql18, "no broker answers"))
        assert (await row(sql18))["last_error"].startswith("since 2")
        target.away = False
        await until(lambda: _is(numbers(target.path) == [1, 2, 3]))
        await until(lambda: _has(sql18, None))


async def _has(sql: asyncpg.Connection, error: str | None) -> bool:
    found = await sql.fetchval("SELECT last_error FROM consumers WHERE name = 'r'")
    return found is None if error is None else error in (found or "")


@pytest.mark.parametrize("when", ["send", "commit"])
async def test_a_refused_event_stops_it_after_all_that_came_before(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path, when: str
) -> None:
    class Refusing(Sqlite):
        poison: int | None = 7
        _sent: tuple[int, ...] = ()

        async def send(self, events: Sequence[Event]) -> None:
            self._sent = tuple(event.global_seq for event in events)
            if when == "send":
                self._check()
            await super().send(events)

        async def commit(self, position: TargetPosition) -> None:
            self._check()
            await super().commit(position)

        def _check(self) -> None:
            if self.poison in self._sent:
                raise EventRefused(7, "it is too large")

    await fill(store18, 2, 5)
    target = Refusing(tmp_path / "out")
    for _ in range(2):
        target._sent = ()
        with pytest.raises(RelayFailed, match="relay r stopped at event 7: it is too large") as caught:
            await store18.relay("r", target)
        assert caught.value.global_seq == 7
        assert [number for *_, number in target.taken()] == list(range(1, 7))
        assert (await row(sql18))["last_error"] == "it is too large"
    target.poison, target._sent = None, ()
    await store18.relay("r", target, once=True)
    assert [number for *_, number in target.taken()] == list(range(1, 11))


async def test_a_target_that_fails_for_good_ends_it_in_one_line(store18: EventStore, tmp_path: Path) -> None:
    class Fenced(Lines):
        async def commit(self, position: TargetPosition) -> None:  # noqa: ARG002
            raise TargetFailed("another instance has taken over")

    await fill(store18, 1, 1)
    with pytest.raises(RelayFailed, match=r"^relay r stopped: another instance has taken over$"):
        await store18.relay("r", Fenced(tmp_path / "out"))


class Fencing(Sqlite):
    """Takes nothing more from an instance, once."""

    def __init__(self, path: Path, sql: asyncpg.Connection | None = None) -> None:
        super().__init__(path)
        self._sql = sql
        self._done = False

    async def commit(self, position: TargetPosition) -> None:
        if position.position and not self._done:
            self._done = True
            if self._sql is not None:
                await self._sql.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'esx relay' "
                    "AND datname = current_database()"
                )
            error = TargetFailed("another instance has taken over")
            error.fenced = True
            raise error
        await super().commit(position)


async def test_fenced_off_it_goes_on_with_its_lease_and_ends_without(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    await fill(store18, 1, 3)
    target = Fencing(tmp_path / "with")
    await store18.relay("with", target, once=True)
    assert [number for *_, number in target.taken()] == [1, 2, 3]
    with pytest.raises(RelayFailed, match="another instance has taken over"):
        await store18.relay("without", Fencing(tmp_path / "without", sql18), once=True)


async def test_a_second_instance_waits_and_takes_over(
    store18: EventStore, dsn18: str, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    first, second = Lines(tmp_path / "first"), Lines(tmp_path / "second")
    await fill(store18, 1, 3)
    async with EventStore.connect(dsn18) as other:
        async with running(store18.relay("r", first)):
            await until(lambda: _is(len(numbers(first.path)) == 3))
            waiting = asyncio.ensure_future(other.relay("r", second))
            await store18.append("s-0", [NewEvent("T")])
            await until(lambda: _at(sql18, 4))
            assert numbers(first.path) == [1, 2, 3, 4]
            assert numbers(second.path) == []
        await store18.append("s-0", [NewEvent("T")])
        async with running(waiting):
            await until(lambda: _is(numbers(second.path) == [5]))


async def test_paused_it_commits_nothing(store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path) -> None:
    target = Sqlite(tmp_path / "out")
    await fill(store18, 1, 2)
    async with running(store18.relay("r", target)):
        await until(lambda: _is((tmp_path / "out").exists() and len(target.taken()) == 2))
        await sql18.execute("UPDATE consumers SET paused = true")
        await store18.append("s-0", [NewEvent("T")])
        other = Lines(tmp_path / "other")
        async with running(store18.relay("other", other)):
            await until(lambda: _is(len(numbers(other.path)) == 3))
        assert len(target.taken()) == 2
        await sql18.execute("UPDATE consumers SET paused = false")
        await until(lambda: _is(len(target.taken()) == 3))


async def test_reset_it_sends_again_also_where_the_target_keeps_the_position(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    target = Sqlite(tmp_path / "out")
    await fill(store18, 1, 3)
    async with running(store18.relay("r", target)):
        await until(lambda: _is((tmp_path / "out").exists() and len(target.taken()) == 3))
        await until(lambda: _at(sql18, 3))
        await sql18.execute("UPDATE consumers SET position = 1, history = NULL")
        await until(lambda: _is(len(target.taken()) == 5))
    assert [number for *_, number in target.taken()] == [1, 2, 3, 2, 3]
    await sql18.execute("UPDATE consumers SET position = 0, history = NULL")
    await store18.relay("r", target, once=True)
    assert len(target.taken()) == 8


async def _at(sql: asyncpg.Connection, position: int) -> bool:
    return bool((await row(sql))["position"] == position)


async def test_positions_that_do_not_fit_together_stop_it(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    target = Sqlite(tmp_path / "out")
    await fill(store18, 1, 3)
    await store18.relay("r", target, once=True)
    with pytest.raises(RelayFailed, match="has 3 as its position, and its target has no position of it"):
        await store18.relay("r", Sqlite(tmp_path / "another"), once=True)
    await sql18.execute("DELETE FROM consumers")
    with pytest.raises(RelayFailed, match="its target has 3 as its position, for a relay of this name that"):
        await store18.relay("r", target, once=True)
    await store18.relay("r", target, start=2, once=True)
    assert [number for *_, number in target.taken()] == [1, 2, 3, 3]


async def test_it_stops_where_the_history_is_another_one(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    target = Sqlite(tmp_path / "out")
    await fill(store18, 1, 3)
    await store18.relay("r", target, once=True)
    await sql18.execute("TRUNCATE events RESTART IDENTITY")
    await fill(store18, 1, 5)
    with pytest.raises(HistoryChanged, match="relay r is at 3"):
        await store18.relay("r", target, once=True)
    assert len(target.taken()) == 3


async def test_a_row_that_was_restored_without_the_events_is_noticed_by_what_the_target_keeps(
    store18: EventStore, sql18: asyncpg.Connection, tmp_path: Path
) -> None:
    """A restore takes the row back with the events: only the target knows what it got."""
    target = Sqlite(tmp_path / "out")
    await fill(store18, 1, 2)
    await store18.relay("r", target, once=True)
    kept = await row(sql18)
    await fill(store18, 1, 3)
    await store18.relay("r", target, once=True)
    await sql18.execute("DELETE FROM events WHERE global_seq > 2")
    await sql18.execute("UPDATE consumers SET position = 2, history = $1", kept["history"])
    await sql18.execute("ALTER SEQUENCE events_global_seq_seq RESTART 3")
    await fill(store18, 1, 4)
    with pytest.raises(HistoryChanged, match="relay r is at 5"):
        await store18.relay("r", target, once=True)


async def test_it_is_refused_behind_a_pooler_and_for_wrong_arguments(
    store18: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Lines(tmp_path / "out")
    for wrong in ({"name": ""}, {"window": 0}, {"start": -1}):
        with pytest.raises(InvalidQuery):
            await store18.relay(**({"name": "r", "target": target} | wrong))  # type: ignore[arg-type]
    monkeypatch.setattr(store18._connector, "pooler", Pooler(certain=True))
    with pytest.raises(RelayFailed, match="behind a connection pooler there is no lease"):
        await store18.relay("r", target)


async def test_a_projection_of_its_name_keeps_its_row(store18: EventStore, tmp_path: Path) -> None:
    async def nothing(*_: object) -> None: ...

    async with running(store18.project("r", nothing)):
        await until(lambda: _known(store18))
    with pytest.raises(RelayFailed, match="its name is that of a consumer of another kind"):
        await store18.relay("r", Lines(tmp_path / "out"), once=True)


async def _known(store: EventStore) -> bool:
    return bool(await store.projections())


async def test_it_is_refused_in_a_store_that_was_opened_read_only(dsn18: str, tmp_path: Path) -> None:
    async with EventStore.connect(dsn18, read_only=True) as store:
        with pytest.raises(StoreFailed, match="read-only"):
            await store.relay("r", Lines(tmp_path / "out"))

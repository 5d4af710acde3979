from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from esx.demo import FillResult, TrafficStats, fill, history, nouns, run_traffic, shop
from esx.demo.money import decode, encode
from esx.store import EventStore, NewEvent, StoreUnavailable
from esx.store.bulk import ImportedEvent, StreamTaken
from esx.store.model import category_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from esx.store.model import AppendResult, Event, ExpectedVersion

NOW = datetime(2026, 8, 7, 15, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def events() -> list[ImportedEvent]:
    return list(history.generate(NOW))


# -- the history ----------------------------------------------------------------------------------------------


def test_there_are_thousands_of_events_in_hundreds_of_streams_of_four_categories(events: list[ImportedEvent]) -> None:
    streams = {event.stream_id for event in events}
    assert 5_000 <= len(events) <= 8_000
    assert 300 <= len(streams) <= 2_000
    by_category = Counter(map(category_of, streams))
    assert set(by_category) == {"accounts", "orders", "payments", "carts"}
    assert min(by_category.values()) >= 50


def test_streams_count_from_zero_without_a_gap(events: list[ImportedEvent]) -> None:
    streams: dict[str, list[int]] = defaultdict(list)
    for event in events:
        streams[event.stream_id].append(event.stream_seq)
    assert all(numbers == list(range(len(numbers))) for numbers in streams.values())
    assert len({event.event_id for event in events}) == len(events)


def test_it_is_the_same_every_time(events: list[ImportedEvent]) -> None:
    assert list(history.generate(NOW)) == events
    assert list(history.generate(NOW, seed=1)) != events


def test_another_now_moves_the_times_and_nothing_else(events: list[ImportedEvent]) -> None:
    later = list(history.generate(NOW + timedelta(days=3, hours=7)))
    assert [event._replace(created_at=NOW) for event in later] == [event._replace(created_at=NOW) for event in events]


@pytest.mark.parametrize("hour", [0, 4, 15, 23])
def test_times_lie_in_the_past_two_weeks_in_order(hour: int) -> None:
    now = NOW.replace(hour=hour)
    times = [event.created_at for event in history.generate(now)]
    assert times == sorted(times)
    assert now - timedelta(minutes=10) < times[-1] < now
    assert now - timedelta(days=15) < times[0] < now - timedelta(days=13)


def test_nights_are_quiet_in_the_time_zone_of_now() -> None:
    zone = timezone(timedelta(hours=9))
    hours = Counter(event.created_at.astimezone(zone).hour for event in history.generate(NOW.astimezone(zone)))
    assert sum(hours[hour] for hour in range(1, 6)) * 4 < sum(hours[hour] for hour in range(17, 22))


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        list(history.generate(datetime(2026, 8, 7)))


def test_causes_come_before_their_effects_in_the_same_correlation(events: list[ImportedEvent]) -> None:
    seen: dict[str, str] = {}
    sagas: dict[str, set[str]] = defaultdict(set)
    first_of: Counter[str] = Counter()
    for event in events:
        assert event.metadata is not None
        metadata = json.loads(event.metadata)
        correlation = metadata["correlation_id"]
        assert str(UUID(correlation)) == correlation
        assert metadata["user"]
        assert metadata["source"]
        if "causation_id" in metadata:
            assert seen[metadata["causation_id"]] == correlation
        else:
            first_of[correlation] += 1
        seen[str(event.event_id)] = correlation
        sagas[correlation].add(category_of(event.stream_id))
    assert set(first_of.values()) == {1}
    assert set(first_of) == set(sagas)
    assert sum(len(categories) == 4 for categories in sagas.values()) > 100


def test_the_business_makes_sense(events: list[ImportedEvent]) -> None:
    balances: dict[str, Decimal] = {}
    signs = {
        "MoneyDeposited": ("amount", 1),
        "MoneyWithdrawn": ("amount", -1),
        "AccountDebited": ("amount", -1),
        "AccountCredited": ("amount", 1),
        "PaymentReceived": ("net", 1),
        "RefundPaidOut": ("amount", -1),
    }
    types = Counter(event.event_type for event in events)
    for event in events:
        data = decode(event.data)
        if "balance" in data:
            field, sign = signs.get(event.event_type, ("balance", 0))
            balances[event.stream_id] = balances.get(event.stream_id, Decimal(0)) + sign * data[field]
            assert data["balance"] == balances[event.stream_id] >= 0
        if event.event_type == "CartCheckedOut":
            assert data["items"]
            assert data["total"] == sum(item["line_total"] for item in data["items"]) - data["discount"]
    for event_type in ("CartAbandoned", "PaymentDeclined", "PaymentRefunded", "OrderDelivered", "OrderCancelled"):
        assert types[event_type] >= 10, event_type
    assert types["OrderPaid"] == types["PaymentCaptured"]


def test_payloads_have_exact_money_nesting_size_and_names_of_many_scripts(events: list[ImportedEvent]) -> None:
    added = [event.data for event in events if event.event_type == "ItemAdded"]
    assert any('"unit_price": 12.50,' in data for data in added)
    assert max(len(event.data) for event in events) > 2_000
    text = "".join(event.data for event in events)
    assert "José" in text
    assert "Zoë" in text
    assert "李雷" in text
    assert text.isprintable()


def test_amounts_keep_two_places_in_json() -> None:
    value = {"price": Decimal("12.5"), "n": 3, "on": True, "none": None, "text": 'a "b"\n', "list": [Decimal(1), {}]}
    text = encode(value)
    assert text == '{"price": 12.50, "n": 3, "on": true, "none": null, "text": "a \\"b\\"\\n", "list": [1.00, {}]}'
    assert decode(text) == value
    assert encode(decode(text)) == text


def test_nothing_follows_from_an_event_the_shop_does_not_know() -> None:
    fact = nouns.Fact("orders-20931", "Unheard", {}, "somebody", "c", UUID(int=1))
    assert shop.react([fact], Random(1)) is None
    assert not shop.is_ours("orders-x")
    assert not shop.is_ours("$all")


# -- filling --------------------------------------------------------------------------------------------------


async def all_events(store: EventStore) -> list[Event]:
    return [event async for event in store.read_all()]


async def test_filling_puts_the_history_there(store: EventStore, events: list[ImportedEvent]) -> None:
    done = await fill(store, now=NOW)
    assert done == FillResult(len({event.stream_id for event in events}), len(events), created=True)
    stored = await all_events(store)
    assert [(event.stream_id, event.stream_seq, event.created_at, event.event_id) for event in stored] == [
        (event.stream_id, event.stream_seq, event.created_at, event.event_id) for event in events
    ]
    assert any('"unit_price": 12.50' in event.data_json for event in stored)


async def test_filling_again_changes_nothing(store: EventStore) -> None:
    first = await fill(store)
    again = await fill(store, now=datetime.now(UTC) + timedelta(days=1))
    assert again == first._replace(created=False)
    assert len(await all_events(store)) == first.events


async def test_two_at_once_make_one_history(store: EventStore, dsn: str) -> None:
    async with EventStore.connect(dsn) as other:
        one, two = await asyncio.gather(fill(store), fill(other, now=NOW))
    assert sorted([one.created, two.created]) == [False, True]
    assert len(await all_events(store)) == one.events


async def test_what_else_is_in_the_store_stays(store: EventStore) -> None:
    await store.append("accounts-9", [NewEvent("Noted", {"by": "someone"})])
    await store.append("load-1", [NewEvent("Load")] * 1 + [NewEvent("Load")])
    done = await fill(store)
    assert done.created
    stored = await all_events(store)
    assert len(stored) == done.events + 3
    assert [event.stream_id for event in stored[:3]] == ["accounts-9", "load-1", "load-1"]


async def test_a_stream_of_the_same_name_is_an_error_and_nothing_is_stored(store: EventStore) -> None:
    await store.append("carts-30001", [NewEvent("Mine")])
    with pytest.raises(StreamTaken):
        await fill(store)
    assert len(await all_events(store)) == 1


async def test_an_interrupted_filling_leaves_nothing_and_can_be_repeated(store: EventStore) -> None:
    def until_it_breaks() -> Any:
        for number, event in enumerate(history.generate(NOW)):
            if number == 3_000:
                raise RuntimeError("killed")
            yield event

    with pytest.raises(RuntimeError):
        await store.import_events(until_it_breaks())
    assert await all_events(store) == []
    assert (await fill(store)).created


# -- traffic --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def traffic(
    store: EventStore, *, rate: float = 200.0, writers: int = 4, seed: int | None = 7
) -> AsyncIterator[TrafficStats]:
    """Traffic for as long as the block lasts; it must then stop at once, by the cancellation and nothing else."""
    stats = TrafficStats()
    task = asyncio.create_task(run_traffic(store, rate=rate, writers=writers, seed=seed, stats=stats))
    try:
        yield stats
    finally:
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        assert done
        assert task.cancelled()


async def until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


def check_versions(stored: Sequence[Event]) -> None:
    streams: dict[str, list[int]] = defaultdict(list)
    for event in sorted(stored, key=lambda event: (event.stream_id, event.stream_seq)):
        streams[event.stream_id].append(event.stream_seq)
    assert all(numbers == list(range(len(numbers))) for numbers in streams.values())


async def test_traffic_carries_the_history_on(store: EventStore) -> None:
    filled = await fill(store)
    old = {event.stream_id for event in await all_events(store)}
    async with traffic(store) as stats:
        await until(lambda: stats.appended >= 60)
    stored = await all_events(store)
    check_versions(stored)
    new = stored[filled.events :]
    # An append may have been committed in the moment of the cancellation, at most one a writer.
    assert stats.appended <= len(new) <= stats.appended + 4
    assert {event.stream_id for event in new} & old
    assert {event.stream_id for event in new} - old
    assert len({event.event_id for event in stored}) == len(stored)
    known = {str(event.event_id): event.metadata["correlation_id"] for event in stored}
    for event in new:
        assert category_of(event.stream_id) in shop.CATEGORIES
        assert event.metadata["user"]
        if "causation_id" in event.metadata:
            assert known[event.metadata["causation_id"]] == event.metadata["correlation_id"]


async def test_traffic_keeps_about_the_rate_without_bursts(store: EventStore) -> None:
    await fill(store)
    async with traffic(store, rate=50) as stats:
        await until(lambda: stats.appended > 0)
        counts = [stats.appended]
        for _ in range(4):
            await asyncio.sleep(0.5)
            counts.append(stats.appended)
    made = [after - before for before, after in pairwise(counts)]
    assert max(made) <= 3 * 25 + 4
    assert 30 <= sum(made) <= 200


async def test_writers_meet_and_the_later_one_tries_again(store: EventStore) -> None:
    await fill(store)
    async with traffic(store) as stats:
        await until(lambda: stats.conflicts >= 2)
    stored = await all_events(store)
    check_versions(stored)
    # Whoever lost has reckoned with what the winner wrote.
    balance = Decimal(0)
    for event in (event for event in stored if event.stream_id == nouns.SHOP_ACCOUNT):
        data = decode(event.data_json)
        change = {"MoneyDeposited": "amount", "PaymentReceived": "net", "RefundPaidOut": "amount"}.get(event.event_type)
        if change is not None:
            balance += -data[change] if event.event_type == "RefundPaidOut" else data[change]
        assert data["balance"] == balance


async def test_traffic_begins_in_an_empty_store_beside_another_and_beside_strangers(
    store: EventStore, dsn: str
) -> None:
    await store.append("accounts-1001", [NewEvent("AccountOpened", [1, 2], {"correlation_id": "x", "user": "y"})])
    await store.append("orders-20001", [NewEvent("OrderPlaced", {"total": "lots"}, {"correlation_id": {}})])
    await store.append("orders-20002", [NewEvent("InvoiceIssued", None, {"correlation_id": "x", "user": 3})])
    await store.append("carts-30001", [NewEvent("CartCheckedOut", {"order_id": 5}, [])])
    await store.append("payments-20001-1", [NewEvent("PaymentCaptured", {"order_id": "$all"})])
    async with EventStore.connect(dsn) as other, traffic(store) as one, traffic(other, seed=None) as two:
        await until(lambda: one.appended >= 40 and two.appended >= 40)
    stored = await all_events(store)
    check_versions(stored)
    assert one.appended + two.appended <= len(stored) - 5 <= one.appended + two.appended + 8


class Unreliable:
    """A store whose connection is lost at times: before an append has been made, or after."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._calls = 0
        self.lost = 0

    def _loses(self) -> bool:
        self._calls += 1
        lost = self._calls % 15 == 0
        self.lost += lost
        return lost

    async def streams_page(self, **how: Any) -> Any:
        return await self._store.streams_page(**how)

    async def read_page(self, stream_id: str, **how: Any) -> list[Event]:
        if self._loses():
            raise StoreUnavailable("lost while reading")
        return await self._store.read_page(stream_id, **how)

    async def append(self, stream_id: str, new: Sequence[NewEvent], *, expected: ExpectedVersion) -> AppendResult:
        lost = self._loses()
        if lost and self._calls % 2:
            raise StoreUnavailable("lost before the append")
        done = await self._store.append(stream_id, new, expected=expected)
        if lost:
            raise StoreUnavailable("lost after the append")
        return done


async def test_lost_connections_neither_stop_the_traffic_nor_double_an_event(store: EventStore) -> None:
    unreliable = Unreliable(store)
    async with traffic(unreliable, writers=8) as stats:  # type: ignore[arg-type]
        await until(lambda: stats.appended >= 60 and unreliable.lost >= 4)
    stored = await all_events(store)
    check_versions(stored)
    assert len({event.event_id for event in stored}) == len(stored)
    assert stats.appended <= len(stored) <= stats.appended + 8


async def test_traffic_stops_at_once_while_the_store_is_away(dsn: str) -> None:
    store = await EventStore.connect(dsn)
    await store.close()
    async with traffic(store):
        await asyncio.sleep(0.1)


async def test_other_errors_of_the_store_end_the_traffic(store: EventStore, sql: Any) -> None:
    from esx.store import SchemaMissing

    task = asyncio.create_task(run_traffic(store, rate=100))
    await asyncio.sleep(0.2)
    await sql.execute("DROP TABLE events")
    with pytest.raises(SchemaMissing):
        await asyncio.wait_for(task, 5)


async def test_a_rate_of_nothing_is_refused(store: EventStore) -> None:
    with pytest.raises(ValueError, match="rate"):
        await run_traffic(store, rate=0)

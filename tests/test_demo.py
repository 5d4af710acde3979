from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import pytest_asyncio

from esx.demo import FillResult, TrafficStats, fill, history, run_traffic, samples, shop
from esx.demo import traffic as traffic_module
from esx.demo.samples import customer, encode
from esx.errors import SchemaMissing, StoreUnavailable
from esx.eventstore import EventStore
from esx.model import NewEvent, category_of
from esx.store.bulk.copy import ImportedEvent, StreamTaken
from tests.conftest import Servers, fresh_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from esx.expected import ExpectedVersion
    from esx.model import AppendResult, Event

pytestmark = pytest.mark.slow

NOW = datetime(2026, 8, 7, 15, 30, tzinfo=UTC)


def decode(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


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
        "AccountOpened": ("balance", 1),
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


def test_a_parcel_is_scanned_at_most_twice_and_nowhere_twice(events: list[ImportedEvent]) -> None:
    hubs: dict[str, list[str]] = defaultdict(list)
    for event in events:
        if event.event_type == "ParcelScanned":
            hubs[event.stream_id].append(decode(event.data)["hub"])
    assert {len(way) for way in hubs.values()} == {1, 2}
    assert all(way[0] == "Hamburg" and len(set(way)) == len(way) for way in hubs.values())


def test_the_shop_opens_with_cash_and_verifies_no_mailbox_of_its_own(events: list[ImportedEvent]) -> None:
    own = [event for event in events if event.stream_id == shop.SHOP_ACCOUNT]
    assert decode(own[0].data)["balance"] == 5000
    assert "EmailVerified" not in {event.event_type for event in own}


def test_a_program_cancels_unpaid_orders_and_a_person_paid_ones(events: list[ImportedEvent]) -> None:
    last: dict[str, str] = {}
    seen = set()
    for event in events:
        if event.event_type == "OrderCancelled":
            paid = last[event.stream_id] == "OrderPaid"
            assert event.metadata is not None
            metadata, reason = json.loads(event.metadata), decode(event.data)["reason"]
            assert (metadata["source"], metadata["user"] == "svc-orders") == (
                ("backoffice", False) if paid else ("orders", True)
            )
            assert (reason in samples.WORDS["cancelled"]) == paid
            seen.add(paid)
        last[event.stream_id] = event.event_type
    assert seen == {False, True}


def test_customers_shop_on_one_channel_a_cart_and_on_several_in_all(events: list[ImportedEvent]) -> None:
    by_cart: dict[str, set[str]] = defaultdict(set)
    by_account: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.stream_id.startswith("carts-") and event.event_type != "CartAbandoned":
            assert event.metadata is not None
            by_cart[event.stream_id].add(json.loads(event.metadata)["source"])
            if event.event_type == "CartCreated":
                data = decode(event.data)
                by_account[data["account_id"]].add(data["channel"])
    assert {len(sources) for sources in by_cart.values()} == {1}
    assert max(len(channels) for channels in by_account.values()) == 2


def test_a_mailbox_is_one_persons() -> None:
    mailboxes = [customer(number)["email"] for number in range(1000, 3000)]
    assert len(set(mailboxes)) == len(mailboxes)


def test_coupons_are_worth_what_their_codes_say() -> None:
    assert {coupon["code"]: coupon["percent"] for coupon in samples.COUPONS} == {
        "WELCOME5": 5,
        "TEATIME10": 10,
        "¡HOLA!15": 15,
    }


def test_the_trail_in_the_documents_is_of_the_history(events: list[ImportedEvent]) -> None:
    text = (Path(__file__).parents[1] / "docs" / "commands.md").read_text(encoding="utf-8")
    correlation = re.findall(r"^correlation_id (\S+): ", text, re.MULTILINE)
    shown = re.findall(r"^ +(\d+) +\+[^●↓]+[●↓] (\w+) +(\S+)@(\d+)$", text, re.MULTILINE)
    assert shown == [
        (str(place), event.event_type, event.stream_id, str(event.stream_seq))
        for place, event in enumerate(events, 1)
        if correlation == [json.loads(event.metadata or "{}")["correlation_id"]]
    ]
    assert len(shown) > 5


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
    fact = shop.Fact("orders-20931", "Unheard", {}, {"correlation_id": "c"}, UUID(int=1))
    assert shop.react([fact], Random(1)) is None
    assert not shop.is_ours("orders-x")
    assert not shop.is_ours("$all")


# -- filling --------------------------------------------------------------------------------------------------


async def _filled(dsn: str) -> None:
    async with EventStore.connect(dsn) as store:
        await store.init()
        await fill(store)


@pytest_asyncio.fixture
async def filled(servers: Servers) -> AsyncIterator[EventStore]:
    """A store of the test's own that holds the history, which is made once."""
    await servers.kept(18, "demo", _filled)
    async with (
        fresh_database(await servers.get(18), "kept_demo") as address,
        EventStore.connect(address, max_connections=40) as store,
    ):
        yield store


async def all_events(store: EventStore) -> list[Event]:
    return [event async for event in store.read_all()]


async def test_filling_puts_the_history_there(store18: EventStore, events: list[ImportedEvent]) -> None:
    done = await fill(store18, now=NOW)
    assert done == FillResult(len({event.stream_id for event in events}), len(events), created=True)
    stored = await all_events(store18)
    assert [(event.stream_id, event.stream_seq, event.created_at, event.event_id) for event in stored] == [
        (event.stream_id, event.stream_seq, event.created_at, event.event_id) for event in events
    ]
    assert any('"unit_price": 12.50' in event.data_json for event in stored)


async def test_filling_again_changes_nothing(filled: EventStore, events: list[ImportedEvent]) -> None:
    again = await fill(filled, now=datetime.now(UTC) + timedelta(days=1))
    assert again == FillResult(len({event.stream_id for event in events}), len(events), created=False)
    assert len(await all_events(filled)) == len(events)


async def test_filling_again_tells_what_is_stored(store18: EventStore) -> None:
    # As if by an earlier esx, with a shorter history; and other streams do not count.
    await store18.import_events(list(history.generate(NOW))[:500])
    await store18.append("accounts-x", [NewEvent("Noted")])
    await store18.append("load-1", [NewEvent("Load")])
    stored = [event for event in await all_events(store18) if shop.is_ours(event.stream_id)]
    assert await fill(store18) == FillResult(len({event.stream_id for event in stored}), 500, created=False)


async def test_two_at_once_make_one_history(store18: EventStore, dsn18: str) -> None:
    async with EventStore.connect(dsn18) as other:
        one, two = await asyncio.gather(fill(store18), fill(other, now=NOW))
    assert sorted([one.created, two.created]) == [False, True]
    assert len(await all_events(store18)) == one.events


async def test_what_else_is_in_the_store_stays(store18: EventStore) -> None:
    await store18.append("accounts-9", [NewEvent("Noted", {"by": "someone"})])
    await store18.append("load-1", [NewEvent("Load")] * 1 + [NewEvent("Load")])
    done = await fill(store18)
    assert done.created
    stored = await all_events(store18)
    assert len(stored) == done.events + 3
    assert [event.stream_id for event in stored[:3]] == ["accounts-9", "load-1", "load-1"]


async def test_a_stream_of_the_same_name_is_an_error_and_nothing_is_stored(store18: EventStore) -> None:
    await store18.append("carts-30001", [NewEvent("Mine")])
    with pytest.raises(StreamTaken):
        await fill(store18)
    assert len(await all_events(store18)) == 1


async def test_an_interrupted_filling_leaves_nothing_and_can_be_repeated(store18: EventStore) -> None:
    def until_it_breaks() -> Any:
        for number, event in enumerate(history.generate(NOW)):
            if number == 3_000:
                raise RuntimeError("killed")
            yield event

    with pytest.raises(RuntimeError):
        await store18.import_events(until_it_breaks())
    assert await all_events(store18) == []
    assert (await fill(store18)).created


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
        done, _ = await asyncio.wait([task], timeout=60)
        assert done
        assert task.cancelled()


async def until(condition: Callable[[], bool], timeout: float = 120.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


def check_versions(stored: Sequence[Event]) -> None:
    streams: dict[str, list[int]] = defaultdict(list)
    for event in sorted(stored, key=lambda event: (event.stream_id, event.stream_seq)):
        streams[event.stream_id].append(event.stream_seq)
    assert all(numbers == list(range(len(numbers))) for numbers in streams.values())


async def test_traffic_carries_the_history_on(filled: EventStore) -> None:
    history = await all_events(filled)
    old = {event.stream_id for event in history}
    async with traffic(filled) as stats:
        await until(lambda: stats.appended >= 60)
    stored = await all_events(filled)
    check_versions(stored)
    new = stored[len(history) :]
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


async def test_traffic_keeps_about_the_rate_without_bursts(filled: EventStore) -> None:
    async with traffic(filled, rate=50) as stats:
        await until(lambda: stats.appended > 0)
        looks = [(time.monotonic(), stats.appended)]
        while len(looks) < 4 or stats.appended < looks[0][1] + 30:
            await asyncio.sleep(0.5)
            looks.append((time.monotonic(), stats.appended))
    for (began, before), (ended, after) in pairwise(looks):
        assert after - before <= 3 * 50 * (ended - began) + 4
    assert looks[-1][1] - looks[0][1] <= 2 * 50 * (looks[-1][0] - looks[0][0])


async def test_writers_meet_and_the_later_one_tries_again(filled: EventStore) -> None:
    async with traffic(filled) as stats:
        await until(lambda: stats.conflicts >= 2)
    stored = await all_events(filled)
    check_versions(stored)
    # Whoever lost has reckoned with what the winner wrote.
    balance = Decimal(0)
    for event in (event for event in stored if event.stream_id == shop.SHOP_ACCOUNT):
        data = decode(event.data_json)
        change = {
            "AccountOpened": "balance",
            "MoneyDeposited": "amount",
            "PaymentReceived": "net",
            "RefundPaidOut": "amount",
        }.get(event.event_type)
        if change is not None:
            balance += -data[change] if event.event_type == "RefundPaidOut" else data[change]
        assert data.get("balance", balance) == balance


async def test_customers_of_an_earlier_esx_stay_who_they_are(store18: EventStore) -> None:
    owner = {"owner": "Ada Quill", "email": "ada.quill@example.com", "currency": "EUR", "balance": Decimal(900)}
    opened = {"correlation_id": "b2187521-4cac-57d1-9a1e-b37b271a34d7", "user": "ada.quill", "source": "web"}
    await store18.append("accounts-1001", [NewEvent("AccountOpened", encode(owner), encode(opened))])
    await store18.append("accounts-1001", [NewEvent("EmailVerified", {"email": owner["email"]}, encode(opened))])

    mine: dict[str, set[str]] = defaultdict(set)
    carts = set()

    async def users(after: int) -> int:
        """Note who did what in the events after that one; return the last."""
        async for event in store18.read_all(after=after):
            after = event.global_seq
            data = decode(event.data_json)
            if event.event_type == "CartCreated" and data["account_id"] == "accounts-1001":
                carts.add(event.stream_id)
            if event.event_type == "OrderPlaced" and data["account_id"] == "accounts-1001":
                mine["buyer"].add(data["customer"]["name"])
            if event.stream_id in carts or event.stream_id == "accounts-1001":
                mine[category_of(event.stream_id)].add(event.metadata["user"])
        return after

    async with traffic(store18):
        async with asyncio.timeout(120):
            last = await users(0)
            while not {"accounts", "carts", "buyer"} <= mine.keys():
                await asyncio.sleep(0.2)
                last = await users(last)
    await users(0)  # also what came later than an event after it
    programs = {"mail-link", "svc-billing", "scheduler"}
    assert mine["accounts"] - programs == mine["carts"] - programs == {"ada.quill"}
    assert mine["buyer"] == {"Ada Quill"}


async def test_no_money_comes_before_the_mailbox_is_verified(
    filled: EventStore, events: list[ImportedEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic_module, "_MEETING", 0.3)
    async with traffic(filled) as stats:
        await until(lambda: stats.appended >= 300)
    types: dict[str, list[str]] = defaultdict(list)
    stored = await all_events(filled)
    for event in stored:
        if event.stream_id != shop.SHOP_ACCOUNT and category_of(event.stream_id) == "accounts":
            types[event.stream_id].append(event.event_type)
    assert all(each[:2] in (["AccountOpened"], ["AccountOpened", "EmailVerified"]) for each in types.values())
    met = Counter(event.stream_id for event in stored[len(events) :] if event.event_type == "MoneyDeposited")
    assert met.most_common(1)[0][0] == shop.SHOP_ACCOUNT
    assert len(met) > 10


class Broken:
    """A store where every other append fails, and the rest never end."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._appends = 0
        self.waiting = 0
        self.waited = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, *_: Any, **__: Any) -> AppendResult:
        self._appends += 1
        if self._appends % 2 == 0:
            raise SchemaMissing("gone")
        self.waiting += 1
        self.waited = True
        try:
            return await asyncio.Future()
        finally:
            self.waiting -= 1


async def test_an_error_while_two_meet_is_seen_as_it_is_and_leaves_no_task(
    filled: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic_module, "_MEETING", 1.0)
    broken = Broken(filled)
    with pytest.raises(SchemaMissing, match="gone"):
        await asyncio.wait_for(run_traffic(broken, rate=100, writers=2), 120)  # type: ignore[arg-type]
    assert broken.waited
    assert broken.waiting == 0


async def test_traffic_begins_in_an_empty_store_beside_another_and_beside_strangers(
    store18: EventStore, dsn18: str
) -> None:
    await store18.append("accounts-1001", [NewEvent("AccountOpened", [1, 2], {"correlation_id": "x", "user": "y"})])
    await store18.append("orders-20001", [NewEvent("OrderPlaced", {"total": "lots"}, {"correlation_id": {}})])
    await store18.append("orders-20002", [NewEvent("InvoiceIssued", None, {"correlation_id": "x", "user": 3})])
    await store18.append("carts-30001", [NewEvent("CartCheckedOut", {"order_id": 5}, [])])
    await store18.append("payments-20001-1", [NewEvent("PaymentCaptured", {"order_id": "$all"})])
    async with EventStore.connect(dsn18) as other, traffic(store18) as one, traffic(other, seed=None) as two:
        await until(lambda: one.appended >= 40 and two.appended >= 40)
    stored = await all_events(store18)
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


async def test_lost_connections_neither_stop_the_traffic_nor_double_an_event(store18: EventStore) -> None:
    unreliable = Unreliable(store18)
    async with traffic(unreliable, writers=8) as stats:  # type: ignore[arg-type]
        await until(lambda: stats.appended >= 60 and unreliable.lost >= 4)
    stored = await all_events(store18)
    check_versions(stored)
    assert len({event.event_id for event in stored}) == len(stored)
    assert stats.appended <= len(stored) <= stats.appended + 8


async def test_traffic_stops_at_once_while_the_store_is_away(dsn18: str) -> None:
    store = await EventStore.connect(dsn18)
    await store.close()
    async with traffic(store):
        await asyncio.sleep(0.1)


async def test_other_errors_of_the_store_end_the_traffic(store18: EventStore, sql18: Any) -> None:
    task = asyncio.create_task(run_traffic(store18, rate=100))
    await asyncio.sleep(0.2)
    await sql18.execute("DROP TABLE events")
    with pytest.raises(SchemaMissing):
        await asyncio.wait_for(task, 120)


async def test_a_rate_of_nothing_is_refused(store18: EventStore) -> None:
    with pytest.raises(ValueError, match="rate"):
        await run_traffic(store18, rate=0)

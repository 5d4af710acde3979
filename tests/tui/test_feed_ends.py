"""A feed that fails: a passing failure is retried, any other stays on the screen, and nothing is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.model import NewEvent
from esx.store.feed.feed import Feed
from esx.tui.tuning import Tuning
from tests.tui.helpers import explorer, feed_of, fill, text_of, until, words

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from esx.store.feed.batch import Batch
    from tests.support.roles import Role

pytestmark = pytest.mark.slow

LINE = (
    "the feed stood at 9,876 and its events are no longer there: this is another history since a standby was promoted, "
    "whose head is 9,812\x1b[31m"
)


class AnotherHistory(EsxError):
    """Stands for any error that a feed may end with."""


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Callable[[], None]]:
    """Return a function that makes every feed fail at an event of type Poison, and returns another that ends this."""
    real = Feed.follow

    async def follow(feed: Feed) -> AsyncGenerator[Batch, None]:
        async for batch in real(feed):
            if any(event.event_type == "Poison" for event in batch.events):
                raise AnotherHistory(LINE)
            yield batch

    def begin() -> Callable[[], None]:
        monkeypatch.setattr(Feed, "follow", follow)
        return lambda: monkeypatch.setattr(Feed, "follow", real)

    return begin


async def test_an_error_that_ends_the_feed_stays_on_the_screen_and_is_not_tried_again(
    dsn18: str, store18: EventStore, monkeypatch: pytest.MonkeyPatch, poison: Callable[[], Callable[[], None]]
) -> None:
    await fill(store18, 1, 3)
    real_feed = EventStore.feed
    opened = 0

    async def feed(store: EventStore, **options: Any) -> Feed:
        nonlocal opened
        opened += 1
        return await real_feed(store, **options)

    monkeypatch.setattr(EventStore, "feed", feed)
    heal = poison()
    async with explorer(dsn18, size=(80, 24), tuning=Tuning(retry=0.01)) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 3 and "● live" in text_of(app))
        await store18.append("s", [NewEvent("Poison")])
        await until(pilot, lambda: LINE.replace("\x1b", "␛") in words(app), "for the error, all of it")
        await until(pilot, lambda: "feed ended" in text_of(app).splitlines()[0])
        assert "complete and in order" not in text_of(app)
        before = opened
        # It stays, here and on Health, and nothing more is counted.
        await store18.append("s", [NewEvent("After")])
        await pilot.press("4")
        await until(pilot, lambda: "last visible  5" in text_of(app) and "ended: the feed stood" in text_of(app))
        await pilot.press("2")
        await until(pilot, lambda: "no longer there" in words(app))
        assert (opened, app.follower.log.received, len(feed_of(app).table.rows)) == (before, 3, 3)
        # On request it restarts, here after the same event.
        await store18.append("s", [NewEvent("Fine")])
        await pilot.press("r")
        await until(pilot, lambda: opened > before and "no longer there" in words(app), "for the next attempt")
        heal()
        await pilot.press("r")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 6 and "complete and in order" in text_of(app))
        assert "ended" not in text_of(app)


async def test_a_feed_that_ended_before_its_first_event_does_not_wait(
    dsn18: str, store18: EventStore, poison: Callable[[], Callable[[], None]]
) -> None:
    await store18.append("s", [NewEvent("Poison")])
    heal = poison()
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "the feed has ended · r restarts it" in text_of(app))
        assert "waiting for events" not in text_of(app)
        # The screen Health says that r restarts it there too.
        await pilot.press("4")
        await until(pilot, lambda: "FEED ENDED" in text_of(app) and "r restarts it" in text_of(app))
        heal()
        await pilot.press("r")
        await until(pilot, lambda: "complete and in order" in text_of(app) and "FEED ENDED" not in text_of(app))
        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 1 and "following" in text_of(app))


async def test_another_filter_goes_on_after_one_whose_feed_ended(
    dsn18: str, store18: EventStore, poison: Callable[[], Callable[[], None]]
) -> None:
    await store18.append("s", [NewEvent("Fine"), NewEvent("Fine")])
    poison()
    async with explorer(dsn18) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 2)
        await store18.append("s", [NewEvent("Poison"), NewEvent("Fine")])
        await until(pilot, lambda: "ended: " in text_of(app))
        await pilot.press("f", *"type:Fine", "enter")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 3 and "complete and in order" in text_of(app))
        await store18.append("s", [NewEvent("Fine")])
        await until(pilot, lambda: len(feed_of(app).table.rows) == 4)


async def test_what_may_pass_is_tried_again_and_told_once(
    dsn18: str, store18: EventStore, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store18, 1, 3)
    await role.grant("SELECT ON events")
    told: list[str] = []
    owner = await asyncpg.connect(dsn18)
    async with explorer(role.dsn(dsn18), tuning=Tuning(retry=0.05)) as (app, pilot):
        monkeypatch.setattr(app, "notify", lambda message, **_: told.append(message))
        await pilot.press("2")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 3)
        await owner.execute(f"REVOKE SELECT ON events FROM {role.name}")
        # Within the transaction that it has open, PostgreSQL may still let it read.
        await until(pilot, lambda: "waiting: " in text_of(app) and "it is tried again" in words(app))
        await store18.append("s", [NewEvent("Unseen")])
        assert app.follower.log.received == 3
        await role.grant("SELECT ON events")
        await until(pilot, lambda: len(feed_of(app).table.rows) == 4 and "complete and in order" in text_of(app))
        assert [message.partition(":")[0] for message in told] == ["Feed"]
    await owner.close()

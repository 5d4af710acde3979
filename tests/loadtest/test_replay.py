"""Sending a capsule's appends again: what they were, in their order, at their recorded times."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from esx import EventStore
from esx.capsule.appends import as_recorded, read_appends
from esx.capsule.format import BadCapsule
from esx.load.errors import LoadFailed
from esx.load.model import LoadOptions
from esx.loadtest.replay import RecordedAppends
from tests.capsule.made import line, make
from tests.support.writers import workshop, write

if TYPE_CHECKING:
    from pathlib import Path


def incident(path: Path) -> Path:
    return make(
        path,
        [
            line(1, "a-1", 0, at=0, event_type="Opened", data={"n": 1.50}),
            line(2, "a-1", 1, at=0, event_type="Named", data={"who": "ü"}),
            line(3, "b-9", 7, at=1, event_type="Moved"),
            line(5, "a-1", 2, at=3, event_type="Closed"),
            line(6, "b-9", 8, at=2, event_type="Moved", data=None),
        ],
    )


def test_events_of_one_stream_and_time_are_one_append(tmp_path: Path) -> None:
    appends = read_appends(incident(tmp_path / "c.esx"))
    assert [(each.at, each.stream, [name for name, _ in each.events]) for each in appends] == [
        (0.0, 0, ["Opened", "Named"]),
        (1.0, 1, ["Moved"]),
        (2.0, 1, ["Moved"]),
        (3.0, 0, ["Closed"]),
    ]
    assert [json.loads(data) for _, data in appends[0].events] == [{"n": 1.5}, {"who": "ü"}]
    options = as_recorded(LoadOptions(replay=str(tmp_path / "c.esx"), times=2), whole=True)
    assert options.rate == pytest.approx(4 / 1.5)
    assert options.duration == 11.5


def test_streams_keep_their_order_whatever_their_times_say(tmp_path: Path) -> None:
    path = make(
        tmp_path / "c.esx",
        [
            line(1, "a", 0, at=5),
            line(2, "a", 1, at=1),  # its transaction began earlier and came later
            line(3, "b", 0, at=2),
            line(4, "a", 2, at=1, created_at=None),
            line(5, None, 3, at=9),  # type: ignore[arg-type]
        ],
    )
    appends = read_appends(path)
    assert [(each.at, each.stream) for each in appends] == [(0.0, 1), (3.0, 0), (3.0, 0), (3.0, 0)]
    assert [json.loads(each.events[0][1])["n"] for each in appends if each.stream == 0] == [1, 2, 4]


def test_what_cannot_be_sent_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no capsule")
    with pytest.raises(BadCapsule, match="no capsule that can be used"):
        read_appends(tmp_path / "text")
    with pytest.raises(LoadFailed, match="cannot be read"):
        read_appends(tmp_path / "none")
    with pytest.raises(LoadFailed, match="has no events to send"):
        read_appends(make(tmp_path / "empty.esx"))
    path = incident(tmp_path / "c.esx")
    with pytest.raises(LoadFailed, match="record a shorter slice"):
        read_appends(path, most_events=3)
    with pytest.raises(LoadFailed, match="record a shorter slice"):
        read_appends(path, most_bytes=20)


def test_each_append_is_taken_once_and_the_end_is_when_all_were_sent(tmp_path: Path) -> None:
    replay = RecordedAppends(read_appends(incident(tmp_path / "c.esx")), 2.0)
    taken = [replay.take() for _ in range(5)]
    assert [None if each is None else each[0] for each in taken] == [0, 500_000_000, 1_000_000_000, 1_500_000_000, None]
    for _ in range(4):
        assert not replay.done
        replay.end()
    assert replay.done


async def test_writers_send_all_of_it_at_its_times(dsn18: str, tmp_path: Path) -> None:
    path = incident(tmp_path / "c.esx")
    options = LoadOptions(users=3, duration=60, replay=str(path), times=10)
    async with workshop(dsn18, options) as shop:
        began = time.monotonic()
        times = await write(shop, lambda: shop.spent)
        assert time.monotonic() - began >= 0.3
    assert len(times["success"]) == 4
    async with EventStore.connect(dsn18) as store:
        events = [event async for event in store.read_all()]
    assert [(event.stream_id, event.stream_seq, event.event_type) for event in events] == [
        ("load-w-0", 0, "Opened"),
        ("load-w-0", 1, "Named"),
        ("load-w-1", 0, "Moved"),
        ("load-w-1", 1, "Moved"),
        ("load-w-0", 2, "Closed"),
    ]
    assert events[1].data == {"who": "ü"}
    first, last = events[0].created_at, events[-1].created_at
    assert first is not None
    assert last is not None
    assert (last - first).total_seconds() == pytest.approx(0.3, abs=0.2)

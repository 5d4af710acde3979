"""The recorded clock: playing, stepping, jumping, and the line of time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from esx.capsule.kept import microseconds
from esx.capsule.places import parse_time
from esx.capsule.player import Player
from esx.capsule.reading import Capsule
from esx.capsule.timeline import Timeline
from tests.capsule.made import BEGUN, make
from tests.capsule.test_recording import at, story

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def player_of(tmp_path: Path) -> tuple[Player, Clock, list[datetime]]:
    with Capsule(story(tmp_path / "x.esx")) as capsule:
        timeline = Timeline(capsule)
    timeline.appeared([(microseconds(at(seconds)), number) for number, seconds in ((1, -60), (2, 0), (3, 10), (4, 20))])
    timeline.settle()
    moved: list[datetime] = []

    async def move(to: datetime, head: int) -> None:
        moved.append(to)
        assert head == timeline.head(to)

    clock = Clock()
    return Player(timeline, move, clock=clock), clock, moved


async def test_the_clock_plays_at_its_speed_and_stops_at_the_end(tmp_path: Path) -> None:
    player, clock, moved = await player_of(tmp_path)
    await player.advance()
    assert moved == []
    player.play()
    clock.now += 2
    await player.advance()
    player.faster(1)
    clock.now += 2
    await player.advance()
    assert moved == [at(2), at(6)]
    player.faster(-3)
    clock.now += 2
    await player.advance()
    assert player.at == at(6.5)
    player.play()
    clock.now += 50
    await player.advance()
    assert player.at == at(6.5)
    player.play()
    player.faster(20)
    clock.now += 1000
    await player.advance()
    assert player.at == player.timeline.end
    await player.advance()
    assert not player.playing


async def test_the_clock_steps_from_event_to_event_and_jumps(tmp_path: Path) -> None:
    player, _, _ = await player_of(tmp_path)
    jumps: list[datetime] = []
    player.jumped = lambda: jumps.append(player.at)
    for _ in range(3):
        await player.step(True)
    assert jumps == [at(10), at(20), at(30)]
    await player.step(False)
    assert player.at == at(20)
    await player.jump(at(10_000))
    assert player.at == player.timeline.end
    await player.jump(at(-10_000))
    assert player.at == player.timeline.begin
    await player.step(False)
    assert player.at == player.timeline.begin


@pytest.mark.parametrize(
    ("fields", "half"),
    [
        ({"followed": True}, 0.5),  # an hour before a minute
        ({"followed": False}, 60 / 61),
        ({"followed": True, "since": BEGUN - timedelta(seconds=20)}, 0.25),
        ({"followed": True, "since": BEGUN}, 0.0),
        ({"followed": True, "since": BEGUN, "ended": BEGUN}, 0.0),
        ({"followed": True, "ended": BEGUN}, 0.5),
    ],
)
def test_what_was_not_recorded_takes_no_more_than_half_of_the_line_of_time(
    tmp_path: Path, fields: dict[str, Any], half: float
) -> None:
    with Capsule(make(tmp_path / "x.esx", **fields)) as capsule:
        timeline = Timeline(capsule)
    assert timeline.share(timeline.info.begun) == pytest.approx(half)
    assert timeline.at_share(0.0) == timeline.begin
    assert timeline.at_share(1.0) == timeline.end
    for share in (0.1, 0.3, 0.5, 0.7, 0.99):
        at_ = timeline.at_share(share)
        assert timeline.begin <= at_ <= timeline.end
        if timeline.begin < at_ < timeline.end:
            assert timeline.share(at_) == pytest.approx(share, abs=1e-6)
    assert sum(timeline.density(7)) == 0


async def test_times_of_a_recording_are_written_in_many_ways(tmp_path: Path) -> None:
    player, _, _ = await player_of(tmp_path)
    timeline = player.timeline
    for text, wanted in (
        ("start", timeline.begin),
        ("begin", at(0)),
        ("END", timeline.end),
        ("+5s", at(10)),
        ("-5s", at(0)),
        ("#3", at(10)),
        ("4", at(20)),
        ("2026-08-07T14:00:20Z", at(20)),
        ("14:00:20Z", at(20)),
        ("-10d", timeline.begin),
    ):
        assert parse_time(text, timeline, at(5)) == wanted, text
    for text in ("#77", "soon", "", "+"):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            parse_time(text, timeline, at(5))

"""The checker can fail: each history that is broken in one way is found out, by the name of what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from esx import NO_STREAM, AppendResult
from tests.faults import check
from tests.faults.history import CHANGED, STOPPED, Call, Failover, History, Part, Reading, Row, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from esx.expected import ExpectedVersion

    Break = Callable[["Story"], object]


class Story:
    """Nine events in two eras, seen by a reader that stayed, one that left, and a projection.

    The failover between the eras lost the batch at 5 and 6. Everything is as it should be: each test breaks something.
    """

    def __init__(self) -> None:
        self.history = History()
        self.first = self.append("a-1", [1, 2], NO_STREAM)
        self.second = self.append("a-2", [3])
        self.refused = self.begin("a-1", [90], NO_STREAM)
        self.history.end(self.refused, "refused", error="WrongVersion")
        self.third = self.append("a-1", [4], 1)
        self.known = self.history.tick()
        self.lost = self.append("a-2", [5, 6], 0)
        self.unknown = self.begin("a-3", [7])
        self.old: list[Row] = [
            *(row(1, "a-1", 0), row(2, "a-1", 1), row(3, "a-2", 0), row(4, "a-1", 2)),
            *(row(5, "a-2", 1), row(6, "a-2", 2), row(7, "a-3", 0)),
        ]
        self.inherited = self.old[:4]
        self.failover = Failover(self.known, self.inherited)
        self.history.era = 1
        self.history.end(self.unknown, "unknown")
        self.fourth = self.append("b-1", [8], numbers=[5])
        self.fifth = self.append("b-1", [9], 0, numbers=[8])
        self.new: list[Row] = [*self.inherited, row(8, "b-1", 0, 5), row(9, "b-1", 1, 8)]
        self.history.tables = [self.old, self.new]
        self.history.failovers = [self.failover]
        self.left = self.read("left", self.old, ended=CHANGED)
        self.stayed = self.read("stayed", self.new, prefix="b-")
        self.history.projected = [Seen(each.global_seq, each.event_id) for each in self.new]

    def begin(self, stream: str, ids: list[int], expected: ExpectedVersion | None = None) -> Call:
        part = Part(stream, tuple(map(UUID, map(_hex, ids))))
        return self.history.begin("append", [part if expected is None else part._replace(expected=expected)])

    def append(
        self, stream: str, ids: list[int], expected: ExpectedVersion | None = None, numbers: list[int] | None = None
    ) -> Call:
        call = self.begin(stream, ids, expected)
        before = sum(len(made.ids) for made in self.history.calls if made.results and made.parts[0].stream_id == stream)
        result = AppendResult(stream, before + len(ids) - 1, (numbers or ids)[-1])
        self.history.end(call, "acknowledged", [result])
        return call

    def read(self, name: str, rows: list[Row], prefix: str = "", ended: str | None = None) -> Reading:
        reading = Reading(name, 0, prefix, 0, 1, ended=ended)
        reading.seen = [Seen(each.global_seq, each.event_id) for each in rows if reading.wants(each)]
        self.history.readings.append(reading)
        return reading

    def kinds(self) -> set[str]:
        return {finding.kind for finding in check.check(self.history).findings}


def _hex(number: int) -> str:
    return f"{number:032x}"


def row(number: int, stream: str, seq: int, at: int | None = None) -> Row:
    return Row(at or number, stream, seq, UUID(_hex(number)))


def test_a_history_in_which_nothing_went_wrong_passes() -> None:
    verdict = check.check(Story().history)
    assert verdict.findings == []
    assert verdict.lost_in_failover == 2


def swap_ids(rows: list[Row], one: int, other: int) -> None:
    """Let two events change places, and nothing else."""
    first, second = rows[one], rows[other]
    rows[one], rows[other] = first._replace(event_id=second.event_id), second._replace(event_id=first.event_id)


def swap_times(one: Call, other: Call) -> None:
    one.began, one.ended, other.began, other.ended = other.began, other.ended, one.began, one.ended


def lose(story: Story, event: Row, *tables: list[Row]) -> None:
    """Take an event away as if it had never been, also for the readers."""
    for table in tables:
        table.remove(event)
    seen = Seen(event.global_seq, event.event_id)
    for gone in (*(reading.seen for reading in story.history.readings), story.history.projected):
        if seen in gone:
            gone.remove(seen)


@pytest.mark.parametrize(
    ("breaks", "kind"),
    [
        pytest.param(lambda s: lose(s, s.new[-1], s.new), check.LOST, id="an acknowledged event is lost"),
        pytest.param(
            lambda s: lose(s, s.old[3], s.old, s.new, s.inherited),
            check.LOST,
            id="an acknowledged event was never there",
        ),
        pytest.param(
            lambda s: lose(s, s.new[3], s.new, s.inherited), check.LOST, id="an event is lost that the standby had"
        ),
        pytest.param(lambda s: lose(s, s.new[3], s.new), check.LOST, id="an event is lost after the failover"),
        pytest.param(lambda s: s.new.append(row(9, "b-1", 2, 9)), check.DOUBLED, id="an event is stored twice"),
        pytest.param(lambda s: s.old.append(row(7, "a-3", 1, 8)), check.DOUBLED, id="an unknown one is stored twice"),
        pytest.param(lambda s: swap_ids(s.new, 4, 5), check.ELSEWHERE, id="two events change places"),
        pytest.param(lambda s: swap_ids(s.old, 0, 1), check.TORN, id="a batch is in another order"),
        pytest.param(lambda s: s.new.reverse(), check.REORDERED, id="the numbers of the table fall"),
        pytest.param(
            lambda s: s.new.__setitem__(5, row(9, "b-1", 1, 10)), check.ELSEWHERE, id="another number than was said"
        ),
        pytest.param(lambda s: s.new.__setitem__(5, row(9, "b-1", 2, 8)), check.REORDERED, id="a stream has a hole"),
        pytest.param(
            lambda s: s.fifth.__setattr__("parts", (s.fifth.parts[0]._replace(expected=7),)),
            check.TORN,
            id="at another version than was expected",
        ),
        pytest.param(lambda s: swap_times(s.first, s.third), check.REORDERED, id="acknowledged in another order"),
        pytest.param(lambda s: lose(s, s.old[5], s.old), check.TORN, id="half a batch is stored"),
        pytest.param(
            lambda s: s.history.end(s.begin("c-1", [91]), "refused") or s.new.append(row(91, "c-1", 0, 9)),
            check.REFUSED,
            id="a refused event is stored",
        ),
        pytest.param(lambda s: s.new.append(row(99, "c-1", 0, 9)), check.FOREIGN, id="nobody appended it"),
        pytest.param(lambda s: s.old.append(row(8, "b-1", 0, 8)), check.FOREIGN, id="there before it was appended"),
        pytest.param(
            lambda s: s.new.extend([row(5, "a-2", 1, 9), row(6, "a-2", 2, 10)]),
            check.ELSEWHERE,
            id="back from the dead",
        ),
        pytest.param(lambda s: s.inherited.append(row(98, "c-1", 0, 5)), check.FOREIGN, id="a heir of somebody else"),
        pytest.param(lambda s: s.stayed.seen.pop(), check.SILENT, id="a reader misses the last event"),
        pytest.param(lambda s: s.left.seen.pop(2), check.SILENT, id="a reader that left had missed an event"),
        pytest.param(lambda s: setattr(s.left, "ended", None), check.SILENT, id="a reader goes on in another history"),
        pytest.param(lambda s: setattr(s.left, "ended", "StoreFailed"), check.ENDED, id="a reader ends by itself"),
        pytest.param(lambda s: setattr(s.left, "last_era", 0), check.FALSE_ALARM, id="a reader leaves its own history"),
        pytest.param(lambda s: s.history.surprises.append("KeyError"), check.SURPRISE, id="an unexpected error"),
        pytest.param(lambda s: s.history.projected.pop(1), check.LOST, id="a projection misses an event"),
        pytest.param(
            lambda s: s.history.projected.append(s.history.projected[-1]),
            check.DOUBLED,
            id="a projection has one twice",
        ),
        pytest.param(lambda s: s.history.projected.reverse(), check.REORDERED, id="a projection in another order"),
    ],
)
def test_what_is_wrong_is_found(breaks: Break, kind: str) -> None:
    story = Story()
    breaks(story)
    assert kind in story.kinds()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        pytest.param(lambda seen: seen.pop(1), check.LOST, id="missed"),
        pytest.param(lambda seen: seen.pop(), check.LOST, id="missed at the end"),
        pytest.param(lambda seen: seen.insert(2, seen[1]), check.DOUBLED, id="twice"),
        pytest.param(lambda seen: seen.reverse(), check.REORDERED, id="another order"),
        pytest.param(lambda seen: seen.append(Seen(99, UUID(_hex(99)))), check.FOREIGN, id="not in the table"),
        pytest.param(lambda seen: seen.append(seen.pop(1)), check.REORDERED, id="below its safe position later"),
    ],
)
def test_a_reader_that_lived_in_one_history_is_held_to_it(change: Callable[[list[Seen]], object], kind: str) -> None:
    table = check.Table([row(1, "a-1", 0), row(2, "a-1", 1), row(3, "a-2", 0), row(5, "b-1", 0)])
    reading = Reading("r", 0, "", 0, 0)
    reading.seen = [Seen(each.global_seq, each.event_id) for each in table.rows]
    assert check.check_reading(reading, [table]) == []
    change(reading.seen)
    assert [finding.kind for finding in check.check_reading(reading, [table])] == [kind]


def test_a_reader_that_was_stopped_need_only_have_come_so_far() -> None:
    table = check.Table([row(1, "a-1", 0), row(2, "a-1", 1), row(3, "a-2", 0)])
    reading = Reading("r", 1, "", 0, 0, [Seen(2, UUID(_hex(2)))], STOPPED)
    assert check.check_reading(reading, [table]) == []
    reading.seen = [Seen(3, UUID(_hex(3)))]
    assert [finding.kind for finding in check.check_reading(reading, [table])] == [check.LOST]

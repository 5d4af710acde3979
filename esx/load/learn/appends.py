"""Appends, put together again from the events of a sample: those of one stream and one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from esx.store.traffic.sample import SampledEvent

_MOST_WEIGHT = 10.0


@dataclass(slots=True)
class SampledAppend:
    """An append: `at` is in seconds since 1970, None if not known. `begins` says that it begins its stream.

    It stands for `weight` appends: the longer one is, the rarer a slice has all of it.
    """

    stream_id: str
    global_seq: int
    at: float | None
    begins: bool
    events: list[SampledEvent]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class AppendRun:
    """The whole appends of a slice, in the order of their first events, which stand for those of `events` events."""

    appends: tuple[SampledAppend, ...]
    events: int


def appends_of(events: Sequence[SampledEvent], first_version: int, *, whole: bool) -> AppendRun:
    """Return the appends of a slice.

    Events of one stream belong to one append if they have one transaction, or where the table does not tell that, one
    time. Unless the slice is `whole`, its first and its last append are left out, as they may be cut.
    """
    found: dict[tuple[str, float | None, int | None, int], SampledAppend] = {}
    for event in events:
        # Without a time and a transaction each event is one append.
        alone = event.global_seq if event.at is None and event.transaction is None else -1
        key = (event.stream_id, event.at, event.transaction, alone)
        append = found.get(key)
        if append is None:
            append = found[key] = SampledAppend(event.stream_id, event.global_seq, event.at, False, [])
        append.events.append(event)
        append.begins = append.begins or event.stream_seq == first_version
    appends = list(found.values())
    if whole or len(appends) < 3:
        return AppendRun(tuple(appends), len(events))
    last = events[-1]
    ends = next(each for each in reversed(appends) if each.events[-1] is last)
    kept = tuple(each for each in appends[1:] if each is not ends)
    room = len(events) - 2
    places = {event.global_seq: place for place, event in enumerate(events)}
    for each in kept:
        length = places[each.events[-1].global_seq] - places[each.global_seq] + 1
        each.weight = min(room / (room - length + 1), _MOST_WEIGHT)
    return AppendRun(kept, room)

"""The appends of a capsule, to be sent again by a load test at their recorded times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from esx.capsule.format import EventLine
from esx.capsule.reading import Capsule
from esx.load.errors import LoadFailed
from esx.load.model import LoadOptions
from esx.model import JsonText
from esx.text import visible

MOST_EVENTS = 1_000_000
MOST_BYTES = 500_000_000
"""How much of a capsule a load test sends: it keeps all of it in memory."""


@dataclass(frozen=True, slots=True)
class CapsuleAppend:
    """An append: `at` is in seconds after the first one. `stream` is the number of its stream, by first appearance.

    Each of the `events` is a type and its data.
    """

    at: float
    stream: int
    events: tuple[tuple[str, JsonText], ...]


@dataclass(slots=True)
class _Growing:
    at: datetime
    stream: int
    events: list[tuple[str, JsonText]]


def read_appends(
    path: str | Path, *, most_events: int = MOST_EVENTS, most_bytes: int = MOST_BYTES
) -> list[CapsuleAppend]:
    """Return the appends of a capsule in the order of their times, and in each stream in that of its events.

    Events of one stream and one time are one append. Events without a stream or a type are left out. Raises BadCapsule,
    and LoadFailed if there are none, too many, or the file cannot be read.
    """
    shown = visible(str(path), limit=200)
    try:
        capsule = Capsule(Path(path))
    except OSError as error:
        raise LoadFailed(f"{shown} cannot be read: {error.strerror}") from None
    found: list[_Growing] = []
    latest: dict[str, _Growing] = {}
    numbers: dict[str, int] = {}
    before: datetime | None = None
    events = size = 0
    with capsule:
        for few in capsule.events():
            for event, _ in few:
                moment = _moment(event) or before
                if not event.stream_id or not event.event_type or moment is None:
                    continue
                before = moment
                events += 1
                size += len(bytes(event.data))
                if events > most_events or size > most_bytes:
                    raise LoadFailed(
                        f"{shown} has more than {most_events:,} events, or {most_bytes:,} bytes of data, and a load "
                        "test keeps all of it in memory: record a shorter slice"
                    )
                one = (event.event_type, JsonText(bytes(event.data).decode()))
                last = latest.get(event.stream_id)
                if last is not None and last.at == moment:
                    last.events.append(one)
                    continue
                # A transaction that began earlier can come later; the events of a stream stay in their order.
                moment = moment if last is None else max(moment, last.at)
                number = numbers.setdefault(event.stream_id, len(numbers))
                latest[event.stream_id] = growing = _Growing(moment, number, [one])
                found.append(growing)
    if not found:
        raise LoadFailed(f"{shown} has no events to send: record a slice that has some")
    found.sort(key=lambda each: each.at)
    first = found[0].at
    return [CapsuleAppend((each.at - first).total_seconds(), each.stream, tuple(each.events)) for each in found]


def as_recorded(options: LoadOptions, *, whole: bool = False) -> LoadOptions:
    """Return the options with the mean rate of the capsule that they name.

    With `whole` the duration is as long as the capsule, and a little longer. Raises what `read_appends` raises.
    """
    if options.replay is None:
        return options
    appends = read_appends(options.replay)
    span = max(appends[-1].at / options.times, 1.0)
    rate = len(appends) / span if options.rate is None else options.rate
    duration = min(span + _AFTER, _LONGEST) if whole else options.duration
    return replace(options, rate=rate, duration=duration)


_AFTER = 10.0
_LONGEST = 86_400.0


def _moment(event: EventLine) -> datetime | None:
    try:
        moment = datetime.fromisoformat(event.created_at or "")
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment

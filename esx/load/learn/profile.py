"""A store's traffic in figures, and its file: TOML that people can read and change."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from esx.load.errors import LoadFailed
from esx.text import counted, iso_utc, visible

FORMAT = 1
HEATS = ("recency", "popularity")
QUANTILES = 11
"""How many sizes describe a type's data: the smallest, the tenths, and the largest."""
MOST_CATEGORIES = 1_000
MOST_TYPES = 10_000
MOST_STREAMS = 1_000_000
"""How many streams a category has at most in a load test."""
MOST_STREAMS_IN_ALL = 2 * MOST_STREAMS
_MOST_BYTES = 1_000_000
_MOST_EVENTS = 1_000
_LARGEST_FILE = 10_000_000


class BadProfile(LoadFailed):
    """A file of learned traffic that cannot be used. The message is one line with the place and the remedy."""


@dataclass(frozen=True, slots=True)
class TypeShare:
    """A type's share of the events of its category, and its sizes: bytes of data at `QUANTILES` quantiles, rising."""

    name: str
    share: float
    bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CategoryTraffic:
    """What appends to the streams of one category are like. Shares are from 0 to 1.

    `share` is that of all appends; `births` of these begin a new stream. The others go to one of `streams` streams:
    with `heat` ``popularity`` to the n-th most popular, with ``recency`` to the n-th youngest, in proportion to
    1 / n^zipf; the first gets the share `hottest` of them. `events_per_append` are numbers of events with their shares.
    """

    name: str
    share: float
    births: float
    heat: str
    zipf: float
    streams: int
    hottest: float
    events_per_append: tuple[tuple[int, float], ...]
    types: tuple[TypeShare, ...]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When appends came: `appends` in each part of `part_seconds`, counted from midnight UTC, from `begins` to `ends`.

    Within a part their rate changes every `burst_seconds`; `burst_spread` is the square of its coefficient of
    variation: 0 is steady, 1 as bursty as an exponential distribution.
    """

    begins: datetime
    ends: datetime
    part_seconds: float
    appends: tuple[float, ...]
    burst_seconds: float
    burst_spread: float

    @property
    def busiest(self) -> float:
        """The appends per second of the busiest part, without parts of which less than a quarter is in the time."""
        lengths = self._lengths()
        least = self.part_seconds / 4
        # Of less than a second no rate is known.
        rates = [
            number / max(length, 1.0) for number, length in zip(self.appends, lengths, strict=True) if length >= least
        ]
        if not rates or not max(rates):
            rates = [sum(self.appends) / max(sum(lengths), 1.0)]
        return max(rates)

    def _lengths(self) -> list[float]:
        """Return how many seconds of each part are in the time: of the first and the last one perhaps not all."""
        parts = len(self.appends)
        if parts < 2:
            return [max((self.ends - self.begins).total_seconds(), 1e-6)] * parts
        midnight = self.begins.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        first = self.part_seconds - (self.begins - midnight).total_seconds() % self.part_seconds
        last = (self.ends - self.begins).total_seconds() - first - (parts - 2) * self.part_seconds
        return [first, *[self.part_seconds] * (parts - 2), max(last, 1e-6)]


@dataclass(frozen=True, slots=True)
class TrafficProfile:
    """What a store's traffic was like. `inferred` names what was not measured, but inferred or assumed."""

    format: int
    made_by: str
    store: str
    since: datetime
    until: datetime
    events: int
    events_read: int
    arrivals: Arrivals
    categories: tuple[CategoryTraffic, ...]
    inferred: dict[str, str] = field(default_factory=dict)

    @property
    def events_per_append(self) -> float:
        """The mean over all appends."""
        return sum(
            each.share * sum(number * share for number, share in each.events_per_append) for each in self.categories
        )


def read_profile(path: str | Path) -> TrafficProfile:
    """Read a file. Raises BadProfile, which names what is wrong."""
    name = visible(str(path), limit=200)
    try:
        with Path(path).open("rb") as file:
            given = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise BadProfile(f"{name} cannot be read: {error.strerror}") from None
    if len(given) > _LARGEST_FILE:
        raise BadProfile(f"{name} is too large for learned traffic: `esx load learn -o FILE` makes one")
    try:
        found = tomllib.loads(given.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadProfile(f"{name} is not TOML: {visible(str(error), limit=200)}") from None
    if found.get("format") != FORMAT:
        raise BadProfile(f"{name} has no format = {FORMAT}: `esx load learn -o FILE` makes such a file")
    try:
        profile = msgspec.convert(found, TrafficProfile)
        _check(profile)
    except (msgspec.ValidationError, ValueError) as error:
        raise BadProfile(f"{name}: {visible(str(error), limit=200)}") from None
    return profile


def _check(profile: TrafficProfile) -> None:
    """Raise ValueError for what would not be a mix."""
    arrivals = profile.arrivals
    _in_range("arrivals.part_seconds", arrivals.part_seconds, 1e-3, 1e9)
    _in_range("arrivals.burst_seconds", arrivals.burst_seconds, 1e-3, 3600.0)
    _in_range("arrivals.burst_spread", arrivals.burst_spread, 0.0, 100.0)
    for number in arrivals.appends:
        _in_range("arrivals.appends", number, 0.0, 1e12)
    if arrivals.begins.tzinfo is None or arrivals.ends.tzinfo is None or arrivals.ends < arrivals.begins:
        raise ValueError("arrivals.begins and arrivals.ends must be times with a zone, one after the other")
    if not arrivals.appends or not arrivals.busiest:
        raise ValueError("arrivals.appends has nothing but zeros: give the appends of at least one part")
    if not 1 <= len(profile.categories) <= MOST_CATEGORIES:
        raise ValueError(f"there are {len(profile.categories)} categories: give from 1 to {MOST_CATEGORIES:,}")
    if sum(len(each.types) for each in profile.categories) > MOST_TYPES:
        raise ValueError(f"there are more than {MOST_TYPES:,} types: leave the rare ones out")
    for at, each in enumerate(profile.categories):
        _check_category(f"categories[{at}]", each)
    if sum(each.streams for each in profile.categories) > MOST_STREAMS_IN_ALL:
        raise ValueError(f"there are more than {MOST_STREAMS_IN_ALL:,} streams: lower streams of the large categories")
    if not sum(each.share for each in profile.categories):
        raise ValueError("the shares of the categories are all 0: give at least one a share above 0")


def _check_category(where: str, category: CategoryTraffic) -> None:
    for name in ("share", "births", "hottest"):
        _in_range(f"{where}.{name}", getattr(category, name), 0.0, 1.0)
    _in_range(f"{where}.zipf", category.zipf, 0.0, 10.0)
    _in_range(f"{where}.streams", category.streams, 1, MOST_STREAMS)
    if category.heat not in HEATS:
        raise ValueError(f"{where}.heat is {category.heat!r}: use {' or '.join(HEATS)}")
    if not category.types or not sum(each.share for each in category.types):
        raise ValueError(f"{where}.types is empty, or all shares are 0: give at least one type a share above 0")
    for each in category.types:
        if not each.name:
            raise ValueError(f"{where}.types has a type without a name")
        _in_range(f"{where}.types.share", each.share, 0.0, 1.0)
        for size in each.bytes:
            _in_range(f"{where}.types.bytes", size, 0, _MOST_BYTES)
        if list(each.bytes) != sorted(each.bytes):
            raise ValueError(f"{where}.types.bytes must rise, from the smallest size to the largest")
    if not sum(share for _, share in category.events_per_append):
        raise ValueError(f"{where}.events_per_append is empty, or all shares are 0: [[1, 1.0]] is one event each")
    for number, share in category.events_per_append:
        _in_range(f"{where}.events_per_append", number, 1, _MOST_EVENTS)
        _in_range(f"{where}.events_per_append", share, 0.0, 1.0)


def _in_range(name: str, value: float, lowest: float, highest: float) -> None:
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise ValueError(f"{name} is {value:,.10g}: use a number from {lowest:,.10g} to {highest:,.10g}")


# -- as a file ------------------------------------------------------------------------------------------------------


def profile_text(profile: TrafficProfile) -> str:
    """Return the file of a profile. What is not measured has a comment that says so."""
    return "\n".join(_lines(profile)) + "\n"


def _lines(profile: TrafficProfile) -> Iterator[str]:
    arrivals = profile.arrivals
    share = profile.events_read / profile.events if profile.events else 1.0
    yield f"# What appends to {visible(profile.store, limit=200)} were like, by `esx load learn`."
    yield "# `esx load --like THIS-FILE --times 3` sends three times as many like them to a test store."
    yield f"# {counted(profile.events_read, 'row')} read, {min(share, 1.0):.1%} of its events at that time."
    yield f"format = {FORMAT}"
    yield f"made_by = {_text(profile.made_by)}"
    yield f"store = {_text(profile.store)}"
    yield f"since = {iso_utc(profile.since)}"
    yield f"until = {iso_utc(profile.until)}"
    yield f"events = {profile.events}"
    yield f"events_read = {profile.events_read}"
    yield ""
    yield "# Measured: where each part begins in the global order. The first and the last part are not whole."
    yield "[arrivals]"
    yield f"begins = {iso_utc(arrivals.begins)}"
    yield f"ends = {iso_utc(arrivals.ends)}"
    yield f"part_seconds = {_number(arrivals.part_seconds)}"
    yield from _wrapped("appends", [_number(each if each < 10 else round(each)) for each in arrivals.appends])
    yield "# Inferred: how much the rate changes from one stretch of so many seconds to the next (0: not at all)."
    yield f"burst_seconds = {_number(arrivals.burst_seconds)}"
    yield f"burst_spread = {_number(arrivals.burst_spread)}"
    for each in profile.categories:
        yield from _category(each)
    yield ""
    yield "# What is not measured, and why."
    yield "[inferred]"
    for name, why in profile.inferred.items():
        yield f"{_text(name)} = {_text(why)}"


def _category(category: CategoryTraffic) -> Iterator[str]:
    yield ""
    yield "[[categories]]"
    yield f"name = {_text(category.name)}"
    yield f"share = {_number(category.share)}  # of all appends"
    yield f"births = {_number(category.births)}  # of them begin a new stream"
    whose = "the n-th youngest" if category.heat == "recency" else "the n-th most popular"
    yield f"heat = {_text(category.heat)}  # inferred: the others go to {whose} of the streams, as 1 / n^zipf"
    yield f"zipf = {_number(category.zipf)}  # inferred"
    yield f"streams = {category.streams}  # inferred"
    yield f"hottest = {_number(category.hottest)}  # the first one's share of the others"
    pairs = ", ".join(f"[{number}, {_number(share)}]" for number, share in category.events_per_append)
    yield f"events_per_append = [{pairs}]  # inferred: number of events, share"
    for each in category.types:
        yield ""
        yield "[[categories.types]]"
        yield f"name = {_text(each.name)}"
        yield f"share = {_number(each.share)}"
        unknown = "" if each.bytes else "  # not measured: the smallest are sent"
        yield f"bytes = [{', '.join(map(str, each.bytes))}]{unknown}"


def _wrapped(name: str, values: Sequence[str]) -> Iterator[str]:
    yield f"{name} = ["
    for begin in range(0, len(values), 24):
        yield f"    {', '.join(values[begin : begin + 24])},"
    yield "]"


def _number(value: float) -> str:
    return f"{float(value):.4g}" if abs(value) < 1e4 else f"{round(value)}"


def _text(text: str) -> str:
    """Return a text as TOML writes it; what is no text, or what a terminal would obey, is made visible."""
    return json.dumps(visible(text, limit=1000), ensure_ascii=False)

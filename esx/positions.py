"""Parses positions in a list of events: a number of the list, a global_seq, or a point in time."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from esx.text import present
from esx.times import in_zone

SYNTAX = "1234 · #99 · 2026-08-07 14:00 · -2h"
"""The forms, for people."""

_TIMES = "2026-08-07 14:00, 2026-08-07T14:00Z, 14:00, yesterday, or -2h"
_MOST = 2**63
_NUMBER = re.compile(r"(#?)([0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)")
_AGO = re.compile(r"-\s*((?:[0-9]+\s*[smhdw]\s*)+)", re.IGNORECASE)
_PART = re.compile(r"([0-9]+)\s*([smhdw])", re.IGNORECASE)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DAY = r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2}|today|yesterday)"
_CLOCK = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
_ZONE = r"(?P<zone>z|utc|[+-][0-9]{2}(?::?[0-9]{2})?)"
_MOMENT = re.compile(rf"(?:{_DAY}(?:(?:t|\s+){_CLOCK}(?:\s*{_ZONE})?)?)", re.IGNORECASE)
_TODAY = re.compile(rf"{_CLOCK}(?:\s*{_ZONE})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list of events; exactly one of the three is set.

    `number` is a number of the list: a stream_seq in a stream, a global_seq in $all. `global_seq` is a global_seq in
    any list. `moment` is an aware datetime, and stands for the first event at or after it.
    """

    number: int | None = None
    global_seq: int | None = None
    moment: datetime | None = None


def parse_position(text: str, *, now: datetime | None = None) -> Position:
    """Return the position written as ``1234``, ``#99`` (a global_seq) or a time as `parse_moment` takes it.

    Raises ValueError, whose message is one line with the text and the possible forms.
    """
    plain = text.strip()
    if number := _NUMBER.fullmatch(plain):
        value = number[2].replace(",", "")
        # The length first, as Python refuses to parse very long numbers.
        if len(value.lstrip("0")) > 19 or int(value) >= _MOST:
            raise ValueError(f"{_quoted(text)} is larger than any position")
        return Position(global_seq=int(value)) if number[1] else Position(number=int(value))
    try:
        return Position(moment=parse_moment(plain, now=now))
    except _Impossible:
        raise
    except ValueError:
        raise ValueError(
            f"{_quoted(text)} is neither a position nor a time: use 1234, #99 for a global_seq, {_TIMES}"
        ) from None


def parse_moment(text: str, *, now: datetime | None = None) -> datetime:
    """Return the point in time, in UTC, that `text` means.

    ``2026-08-07``, ``2026-08-07 14:00``, ``2026-08-07T14:00:05.25Z``, ``14:00`` (of today), ``yesterday 14:00``,
    ``today``, ``now``, and ``-2h`` or ``-1d12h`` (before now; units s m h d w). A time without an offset is in the time
    zone of the display. Raises ValueError, whose message is one line with the text and the possible forms.
    """
    plain = text.strip()
    now = in_zone(now or present())
    try:
        if plain.lower() == "now":
            return now.astimezone(UTC)
        if ago := _AGO.fullmatch(plain):
            # As floats, which have no limit of digits, and are exact up to 2^53 seconds.
            return now.astimezone(UTC) - timedelta(
                seconds=sum(float(count) * _UNITS[unit.lower()] for count, unit in _PART.findall(ago[1]))
            )
        if found := _MOMENT.fullmatch(plain) or _TODAY.fullmatch(plain):
            return _moment(found, now)
    except (ValueError, OverflowError):
        raise _Impossible(f"{_quoted(text)} is a point in time that does not exist") from None
    raise ValueError(f"{_quoted(text)} is not a time: use {_TIMES}")


class _Impossible(ValueError):
    """A well formed text for a time that does not exist."""


def _moment(found: re.Match[str], now: datetime) -> datetime:
    parts = found.groupdict()
    day = (parts.get("day") or "today").lower()
    named = {"today": now.date(), "yesterday": now.date() - timedelta(days=1)}
    hour, minute, second = (int(parts[name] or 0) for name in ("hour", "minute", "second"))
    clock = time(hour, minute, second, int((parts["fraction"] or "0")[:6].ljust(6, "0")))
    if parts["zone"]:
        zone = parts["zone"].upper().replace("UTC", "Z")
        clock = clock.replace(tzinfo=time.fromisoformat(f"00:00{zone}").tzinfo)
    return in_zone(datetime.combine(named.get(day) or date.fromisoformat(day), clock)).astimezone(UTC)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")

"""Times of a recording as a user writes them."""

from __future__ import annotations

import re
from datetime import datetime

from esx.capsule.timeline import Timeline
from esx.positions import parse_position

_AHEAD = re.compile(r"\+\s*(?=\d)")


def parse_time(text: str, timeline: Timeline, now: datetime) -> datetime:
    """Return the time that a text means: one of `parse_moment`, ``+30s``, ``start``, ``begin``, ``end`` or ``#99``.

    A time of the day is of the day of `now`; ``begin`` is where the recording began, ``#99`` when that event appeared.
    Raises ValueError, whose message is one line.
    """
    plain = text.strip().lower()
    named = {"start": timeline.begin, "begin": timeline.info.begun, "end": timeline.end}
    if plain in named:
        return named[plain]
    if _AHEAD.match(plain):
        before = parse_position(_AHEAD.sub("-", plain), now=now).moment
        if before is not None:
            return timeline.within(now + (now - before))
    position = parse_position(text, now=now)
    if position.moment is not None:
        return timeline.within(position.moment)
    number = position.number if position.global_seq is None else position.global_seq
    at = timeline.appearance(number or 0)
    if at is None:
        raise ValueError(f"no event {number} is in this recording")
    return at

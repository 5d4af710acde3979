"""Shows times in one time zone for the whole process. NDJSON stays in UTC, see `esx.text.iso_utc`."""

from datetime import UTC, datetime, tzinfo

from esx.moment import FarTime
from esx.text import iso_utc


class _Shown:
    zone: tzinfo | None = None
    """None: the time zone of the machine."""


def show_times_in(zone: tzinfo | None) -> None:
    """Show and read times in `zone` from now on; None: in the machine's time zone, as at the start."""
    _Shown.zone = zone


def in_zone(moment: datetime) -> datetime:
    """Return `moment` in the time zone of the display; in UTC if that zone does not have it, as for the year 1.

    A moment without a zone is in the zone of the display.
    """
    zone = _Shown.zone
    if moment.tzinfo is None and zone is not None:
        return moment.replace(tzinfo=zone)
    try:
        return moment.astimezone(zone)
    except (OverflowError, ValueError, OSError):
        return moment if moment.tzinfo is None else moment.astimezone(UTC)


def iso(moment: datetime | None) -> str:
    """Return `moment` as ISO 8601 with microseconds and offset (``Z`` for UTC); ``-`` for none."""
    if moment is None:
        return "-"
    shown = in_zone(moment)
    if not shown.utcoffset():
        return iso_utc(moment)
    return shown.isoformat(timespec="microseconds")


def clock(moment: datetime | None) -> str:
    """Return `moment` to the second, without its zone: ``2026-08-07 14:00:00``; ``-`` for none."""
    if isinstance(moment, FarTime):
        return moment.brief
    # Not strftime, which pads years differently from one platform to the next.
    return "-" if moment is None else in_zone(moment).isoformat(" ", "seconds")[:19]

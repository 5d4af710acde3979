"""Times of PostgreSQL that Python does not have: infinite ones, and those before the year 1 or after 9999."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, SupportsIndex

_TICK = timedelta(microseconds=1)


class FarTime(datetime):
    """Such a time, as the nearest datetime in UTC, so that it can be compared and sorted.

    `text` is PostgreSQL's text of it, which esx prints: ``infinity``, ``-infinity``, ``20000-01-01T00:00:00.000000Z``
    or ``0044-03-15T12:00:00+00:00 BC``. Computations with it return ordinary datetimes, based on the nearest time.
    """

    text: str

    def __new__(cls, *parts: Any, **named: Any) -> datetime:  # type: ignore[misc]
        """Return an ordinary datetime, as datetime calls this for results of its methods."""
        return datetime(*parts, **named)

    @classmethod
    def of(cls, text: str) -> FarTime:
        """Return the time that PostgreSQL writes as `text`."""
        early = text.startswith("-") or text.endswith(" BC")
        nearest = datetime.min if early else datetime.max
        if "infinity" not in text:
            # asyncpg takes the first and the last datetime for infinity, which this is not.
            nearest += _TICK if early else -_TICK
        parts: Any = (*nearest.timetuple()[:6], nearest.microsecond, UTC)
        at = super().__new__(cls, *parts)
        at.text = text
        return at

    def astimezone(self, tz: Any = None) -> FarTime:  # noqa: ARG002
        """Return the same, as the nearest time in UTC may not exist in another zone."""
        return self

    def replace(self, *parts: Any, **named: Any) -> datetime:  # type: ignore[override]
        """Return an ordinary datetime with these parts replaced."""
        return datetime.combine(self.date(), self.timetz()).replace(*parts, **named)

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:  # noqa: ARG002
        """Return PostgreSQL's text of it."""
        return self.text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"FarTime.of({self.text!r})"

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, tuple[str]]:
        return FarTime.of, (self.text,)

    @property
    def brief(self) -> str:
        """The time to the minute, in up to 19 characters: ``20000-01-01 00:00``, ``0044-03-15 12:00 BC``."""
        if "infinity" in self.text:
            return self.text
        day, _, clock = self.text.partition("T")
        return f"{day} {clock[:5]}{' BC' if self.text.endswith(' BC') else ''}"

    @property
    def age(self) -> str:
        """A sign for its age, in up to four characters: ``-∞``, ``+∞``, ``BC`` or ``far``."""
        if "infinity" in self.text:
            return "-∞" if self.text.startswith("-") else "+∞"
        return "BC" if self.text.endswith(" BC") else "far"


def from_driver(value: Any) -> datetime | None:
    """Return a value of asyncpg as a time with a zone, or as a FarTime.

    A time without a zone is in UTC: asyncpg's infinity has none, and neither has a column of type ``timestamp``. A text
    is parsed.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            return value
        if value in (datetime.max, datetime.min):
            return FarTime.of("infinity" if value == datetime.max else "-infinity")
        return value.replace(tzinfo=UTC)
    return from_text(str(value))


def from_text(text: str | None) -> datetime | None:
    """Return the time in `text`, in ISO 8601 with its zone; a FarTime if Python cannot read it."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return FarTime.of(text)
    return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

"""Times that PostgreSQL holds and Python does not: infinite ones, and those before the year 1 or after 9999."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, SupportsIndex

_TICK = timedelta(microseconds=1)


class FarTime(datetime):
    """Such a time, as the nearest one that Python has, in UTC, so that it can be compared and sorted.

    `text` is what PostgreSQL calls it, and what all of esx prints: ``infinity``, ``-infinity``,
    ``20000-01-01T00:00:00.000000Z`` or ``0044-03-15T12:00:00+00:00 BC``. What is computed from it is an ordinary
    datetime, and only as right as the nearest time is.
    """

    text: str

    def __new__(cls, *parts: Any, **named: Any) -> datetime:  # type: ignore[misc]
        """Return an ordinary datetime: this is how datetime makes the results of its own methods."""
        return datetime(*parts, **named)

    @classmethod
    def of(cls, text: str) -> FarTime:
        """Return the time that PostgreSQL writes as `text`."""
        early = text.startswith("-") or text.endswith(" BC")
        nearest = datetime.min if early else datetime.max
        if "infinity" not in text:
            # The last ones mean infinity to asyncpg, which must not be stored for a time that is not.
            nearest += _TICK if early else -_TICK
        at = super().__new__(
            cls,
            nearest.year,
            nearest.month,
            nearest.day,
            nearest.hour,
            nearest.minute,
            nearest.second,
            nearest.microsecond,
            UTC,
        )
        at.text = text
        return at

    def astimezone(self, tz: Any = None) -> FarTime:  # noqa: ARG002
        """Return the same: what is nearest in UTC may be beyond Python in another zone."""
        return self

    def replace(self, *parts: Any, **named: Any) -> datetime:  # type: ignore[override]
        """Return an ordinary datetime with these parts replaced."""
        return datetime.combine(self.date(), self.timetz()).replace(*parts, **named)

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:  # noqa: ARG002
        """Return what PostgreSQL calls it."""
        return self.text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"FarTime.of({self.text!r})"

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, tuple[str]]:
        return FarTime.of, (self.text,)

    @property
    def brief(self) -> str:
        """It to the minute, in no more than 19 characters: ``20000-01-01 00:00``, ``0044-03-15 12:00 BC``."""
        if "infinity" in self.text:
            return self.text
        day, _, clock = self.text.partition("T")
        return f"{day} {clock[:5]}{' BC' if self.text.endswith(' BC') else ''}"

    @property
    def age(self) -> str:
        """How long ago it was, in no more than four characters, as far as that can be told in these."""
        if "infinity" in self.text:
            return "-∞" if self.text.startswith("-") else "+∞"
        return "BC" if self.text.endswith(" BC") else "far"


def from_driver(value: Any) -> datetime | None:
    """Return what asyncpg made of a time as what esx hands over: with a zone, or as a FarTime.

    A time without a zone is one in UTC: asyncpg's infinity has none, nor has what a column ``timestamp`` holds. A text
    stands for itself.
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
    """Return the time that `text` writes, in ISO 8601 with its zone; what Python cannot read, as a FarTime."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return FarTime.of(text)
    return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

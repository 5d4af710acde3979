"""Findings of the doctor, and helpers for their texts."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from esx.text import visible

_NAME_LIMIT = 80


class Severity(StrEnum):
    """The severity of a finding. OK and INFO need no action; with WARNING and ERROR something is wrong."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def wrong(self) -> bool:
        """Whether something should be done about it."""
        return self in (Severity.WARNING, Severity.ERROR)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    `check` is the name of the check and never changes; `message` is one line with the measured facts. `remedy` is what
    to run, in this order: SQL statements, which end with a semicolon and need a transaction each, or commands. It is
    empty if nothing is wrong, or if nothing that can be run would help. `made` is false if the check was not possible.
    """

    check: str
    severity: Severity
    message: str
    remedy: tuple[str, ...] = ()
    made: bool = True

    def to_json(self) -> str:
        """Return the finding as one line of JSON."""
        return json.dumps(
            {
                "check": self.check,
                "severity": self.severity.value,
                "message": self.message,
                "remedy": list(self.remedy),
            },
            ensure_ascii=False,
        )


class About:
    """Makes the findings of one check."""

    def __init__(self, check: str) -> None:
        self.check = check

    def ok(self, message: str) -> Finding:
        """All is well; the message says how that shows."""
        return Finding(self.check, Severity.OK, message)

    def info(self, message: str, *remedy: str) -> Finding:
        """Worth knowing, but nothing is wrong."""
        return Finding(self.check, Severity.INFO, message, remedy)

    def unknown(self, message: str, *remedy: str) -> Finding:
        """Nothing is known: the check could not be made, and the remedy says what it takes."""
        return Finding(self.check, Severity.INFO, message, remedy, made=False)

    def warning(self, message: str, *remedy: str) -> Finding:
        """Works, but slower, later or less safely than it should."""
        return Finding(self.check, Severity.WARNING, message, remedy)

    def error(self, message: str, *remedy: str) -> Finding:
        """Loses, refuses or misorders events, or will."""
        return Finding(self.check, Severity.ERROR, message, remedy)


def shown(name: str | None) -> str:
    """Return a name from the database as messages show it."""
    return visible(name or "", limit=_NAME_LIMIT)


def quoted(names: Iterable[str]) -> str:
    """Return names from the database as a list for a message."""
    return ", ".join(shown(name) for name in names)


def duration(seconds: float) -> str:
    """Return a time span for people, e.g. ``42 s`` or ``3 h``."""
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

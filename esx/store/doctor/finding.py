"""What the doctor says: findings, and the few helpers that word them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_NAME_LIMIT = 80


class Severity(Enum):
    """How bad a finding is. OK and INFO need no action; WARNING and ERROR say that something is wrong."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    def __str__(self) -> str:
        return self.value

    @property
    def wrong(self) -> bool:
        """Whether something should be done about it."""
        return self in (Severity.WARNING, Severity.ERROR)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    `check` names the check and never changes; `message` is one line with the facts measured. `remedy` is what to
    run, in this order: SQL statements, which end with a semicolon and each want a transaction of their own, or
    commands. It is empty where nothing is wrong, and where nothing that can be run would help. `made` is False where
    the check could not be made.
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


def identifier(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def size(count: int) -> str:
    """Return a number of bytes for people, e.g. ``1.2 GB``."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """Return a time span for people, e.g. ``42 s`` or ``3 h``."""
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

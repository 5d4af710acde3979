"""What an explorer may do beyond reading the store that it shows: all of it at a terminal, nothing of it in a browser.

This is the one place that knows. `esx serve` switches single things on and tells its pages' explorers through the
environment; these ask for every action, whatever called for it: a key, the palette, the footer or a click.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "ESX_SERVED"
"""Set for an explorer in a browser: what it may do, separated by commas."""

NEEDS: Mapping[str, str] = {
    "app.connections": "connections",
    "app.export": "export",
    "app.screenshot": "export",
    "app.suspend_process": "terminal",
    "app.trust": "terminal",
    "load.start": "load",
}
"""What an action needs, by its name as a keymap knows it. What is not named here only reads, or moves about."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What an explorer may do."""

    load: bool = True
    """Run load tests, and with it write at all: without it every session only reads."""
    export: bool = True
    """Make files."""
    reducer: bool = True
    """Run the Python code that the config file names."""
    connections: bool = True
    """Show another database than the one it was opened on."""
    terminal: bool = True
    """Use the terminal that it runs in, as to suspend the process."""

    @property
    def served(self) -> bool:
        """Whether this is an explorer in a browser."""
        return not self.terminal

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Permissions:
        """Return what `environ` permits. What another server shows in a browser may do nothing."""
        told = environ.get(VARIABLE)
        if told is None and not environ.get("TEXTUAL_DRIVER"):
            return cls()
        return replace(cls.only(*(told or "").split(",")), terminal=False)

    @classmethod
    def only(cls, *names: str) -> Permissions:
        """Return those permissions and no others; a name that is none counts for nothing."""
        return cls(**{field.name: field.name in names for field in fields(cls)})

    def __str__(self) -> str:
        """Return the text for VARIABLE."""
        return ",".join(field.name for field in fields(self) if getattr(self, field.name))

    def allow(self, action: str) -> bool:
        """Return whether an action may be done."""
        need = NEEDS.get(action)
        return need is None or bool(getattr(self, need))

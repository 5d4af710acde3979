"""What an explorer may do beyond reading its store: at a terminal everything, in a browser nothing by default.

`esx serve` allows single things, and passes them to the explorers of its pages through the environment. An explorer
checks each action here, for a key, the palette, the footer or a click.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

VARIABLE = "ESX_SERVED"
"""The environment variable of an explorer in a browser: what it may do, separated by commas."""

NEEDS: Mapping[str, str] = {
    "agree.agree": "load",
    "app.bookmark": "terminal",
    "app.bookmarks": "terminal",
    "bookmarks.remove": "terminal",
    "app.connections": "connections",
    "app.export": "export",
    "app.screenshot": "export",
    "app.suspend_process": "terminal",
    "app.trust": "terminal",
    "consumer-list.choose": "load",
    "load.clean": "load",
    "load.start": "load",
    "step-list.choose": "terminal",
    "step.breaks": "terminal",
    "step.run": "terminal",
    "step.undo": "terminal",
}
"""The permission that an action needs, by its name in keymaps. Other actions only read or navigate."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What an explorer may do."""

    load: bool = True
    """Run load tests, and write at all: without it all sessions are read-only."""
    export: bool = True
    """Write files."""
    reducer: bool = True
    """Run the Python code named in the config file: its reducer and its decoder."""
    connections: bool = True
    """Open other databases."""
    terminal: bool = True
    """Use its terminal, for example to suspend the process."""

    @property
    def served(self) -> bool:
        """Whether this is an explorer in a browser."""
        return not self.terminal

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Permissions:
        """Return what `environ` permits. An explorer that another server shows in a browser may do nothing."""
        told = environ.get(VARIABLE)
        if told is None and not environ.get("TEXTUAL_DRIVER"):
            return cls()
        return replace(cls.only(*(told or "").split(",")), terminal=False)

    @classmethod
    def only(cls, *names: str) -> Permissions:
        """Return only these permissions; unknown names are ignored."""
        return cls(**{field.name: field.name in names for field in fields(cls)})

    def __str__(self) -> str:
        """Return the text for VARIABLE."""
        return ",".join(field.name for field in fields(self) if getattr(self, field.name))

    def allow(self, action: str) -> bool:
        """Return whether an action may be done."""
        need = NEEDS.get(action)
        return need is None or bool(getattr(self, need))

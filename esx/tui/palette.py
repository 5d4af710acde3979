"""The command palette: every action that can be done here, that of the focused part first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import SystemCommand


class Actions(Provider):
    """Offers the app's commands in its own order, instead of Textual's alphabetical one."""

    def _commands(self) -> Iterable[SystemCommand]:
        return self.app.get_system_commands(self.screen)

    async def discover(self) -> Hits:
        """Yield every command while nothing is typed."""
        for command in self._commands():
            if command.discover:
                yield DiscoveryHit(Content(command.title), command.callback, command.title, command.help)

    async def search(self, query: str) -> Hits:
        """Yield the commands that match; what comes first here comes first among equals."""
        matcher = self.matcher(query)
        for place, command in enumerate(self._commands()):
            score = matcher.match(command.title)
            if score > 0:
                yield Hit(score - place * 1e-6, matcher.highlight(command.title), command.callback, help=command.help)

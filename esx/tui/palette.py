"""The command palette: every action that works on this screen, those of the focused part first."""

import contextlib
from collections.abc import Iterable
from functools import partial

from textual import on
from textual.app import App, SystemCommand
from textual.await_complete import AwaitComplete
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input, OptionList
from textual.worker import WorkerError

from esx.tui.dialogs.help import groups_of
from esx.tui.keymap import TASKS, task_of


class Palette(CommandPalette):
    """Textual's palette, also for those who type faster than it searches: it runs what was typed, and closes once."""

    @on(Input.Submitted)
    async def _end_search(self, event: Input.Submitted) -> None:
        """Let enter wait until the list is that of what was typed, and not of what was there before."""
        for worker in list(self.workers):
            if worker.node is self and not worker.is_finished:
                with contextlib.suppress(WorkerError):
                    await worker.wait()
        self._only_while_open(event)

    @on(OptionList.OptionSelected)
    def _only_while_open(self, event: Message) -> None:
        """Ignore what was chosen, if a key that came first has closed the palette."""
        if not self.is_active:
            event.stop()
            event.prevent_default()

    def dismiss(self, result: None = None) -> AwaitComplete:
        """Close, if it is open: Textual would close what lies below, and fail if nothing does."""
        return super().dismiss(result) if self.is_active else AwaitComplete()


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
        """Yield the commands that match; equally good ones stay in their order."""
        matcher = self.matcher(query)
        for place, command in enumerate(self._commands()):
            score = matcher.match(command.title)
            if score > 0:
                yield Hit(score - place * 1e-6, matcher.highlight(command.title), command.callback, help=command.help)


def commands_of(app: App[None], screen: Screen[object]) -> Iterable[SystemCommand]:
    """Yield every action that works on `screen`, each once: by task, and within it those of the focused part first."""
    seen = set()
    offered = [(group.title, *each) for group in groups_of(screen) for each in group.bindings]
    # Goals first. Keys that only move come last: users know them, and the help has them.
    for part, binding, node in sorted(offered, key=lambda each: TASKS.index(task_of(each[1]))):
        title = binding.tooltip or binding.description
        if title not in seen:
            seen.add(title)
            run = partial(app.run_action, binding.action, node)
            yield SystemCommand(title, f"{part} · key {app.get_key_display(binding)}", run)

"""The keys at the bottom of the screen: those of the focused part first, Help and Quit always."""

import re
from typing import NamedTuple

from rich.cells import cell_len
from textual import events
from textual.app import App, ComposeResult
from textual.binding import ActiveBinding
from textual.screen import Screen
from textual.widgets import Footer, Input, Static
from textual.widgets._footer import FooterKey

from esx.tui.keymap import is_moving, is_ours
from esx.tui.panes import Pane

_IN_FIELDS = {"enter": ("enter", "Apply"), "tab": ("tab", "Next field"), "escape": ("esc", "Leave")}
"""How the keys that end a field are shown there."""


class _Shown(NamedTuple):
    key: str
    name: str
    said: str
    width: int
    active: ActiveBinding

    @property
    def drawn(self) -> tuple[object, ...]:
        """What is on screen of it, and what a click does."""
        binding = self.active.binding
        return self.key, self.name, self.said, binding.action, binding.tooltip, self.active.enabled


class KeyFooter(Footer):
    """Textual's footer, but it leaves out the least important keys where there is no room, and cuts none in half."""

    DEFAULT_CSS = """
    KeyFooter {
        overflow: hidden;
        #footer-room { width: 1fr; height: 1; }
        &.-compact FooterKey { margin: 0 1 0 0; }
        &.-compact FooterKey.-last { margin: 0; }
    }
    """

    def __init__(self) -> None:
        super().__init__(compact=True)
        self._width = 0
        self._drawn: list[tuple[object, ...]] | None = None
        self._due = False

    def compose(self) -> ComposeResult:
        """Yield the keys for which there is room, and at the right end those that are always shown."""
        if not self._bindings_ready:
            return
        own, always = self._chosen()
        self._drawn = _drawn(own, always)
        yield from map(self._key, own)
        yield Static(id="footer-room")
        for each in always:
            yield self._key(each, last=each is always[-1])

    def bindings_changed(self, screen: Screen[object]) -> None:
        """Show the keys soon: once for all changes until then, and not if they are those on screen."""
        self._bindings_ready = True
        if screen.app.app_focus and self.is_attached and screen is self.screen and not self._due:
            # Not after the next frame: that may be one of a dialog, and is lost if the dialog is closed before.
            self._due = self.call_later(self._change)

    async def _change(self) -> None:
        self._due = False
        if self.is_attached and _drawn(*self._chosen()) != self._drawn:
            await self.recompose()

    def _chosen(self) -> tuple[list[_Shown], list[_Shown]]:
        """Return the keys for which there is room, and those that are always shown."""
        own, always = self._ranked()
        room = self.size.width - sum(each.width for each in always)
        fitting = []
        for each in own:
            # The width includes Textual's margin.
            if each.width <= room:
                room -= each.width
                fitting.append(each)
        return fitting, always

    def on_resize(self, event: events.Resize) -> None:
        """Choose keys for the new width."""
        if event.size.width != self._width:
            self._width = event.size.width
            self.bindings_changed(self.screen)

    def _ranked(self) -> tuple[list[_Shown], list[_Shown]]:
        """Return the keys of parts and screen, the most important first, and those that are always shown."""
        ranks: dict[str, tuple[int, _Shown]] = {}
        always: list[_Shown] = []
        fields: list[_Shown] = []
        palette = self.app.COMMAND_PALETTE_BINDING
        # In a field, a key that types a character does nothing else; those that end it are shown.
        in_field = isinstance(self.screen.focused, Input)
        several = sum(isinstance(each, Input) for each in self.screen.focus_chain) > 1
        for key, active in self.screen.active_bindings.items():
            binding = active.binding
            wanted = binding.show or key == palette
            name, said = self.app.get_key_display(binding), binding.description
            if in_field and key in _IN_FIELDS:
                if key != "tab" or several:
                    name, said = _IN_FIELDS[key]
                    fields.append(_Shown(key, name, said, cell_len(name) + cell_len(said) + 2, active))
                continue
            if in_field:
                is_typed = key == "space" or (name.isascii() and all(len(one) == 1 for one in name.split()))
                wanted = key == "ctrl+q" or (wanted and not is_typed)
            if not wanted and (in_field or not self._is_of_use(active)):
                continue
            shown = _Shown(key, name, said, cell_len(name) + cell_len(said) + 2, active)
            if wanted and isinstance(active.node, App | Screen):
                always.append(shown)
            else:
                # Where there is room, those that are not so important too.
                rank = self._rank(active) if wanted else 10 + self._rank(active)
                ranks.setdefault(binding.action, (rank, shown))
        # Textual's palette comes last, as it does in its own footer.
        always.sort(key=lambda shown: shown.key == palette)
        fields.sort(key=lambda shown: list(_IN_FIELDS).index(shown.key))
        return [*fields, *(shown for _, shown in sorted(ranks.values(), key=lambda each: each[0]))], always

    @staticmethod
    def _is_of_use(active: ActiveBinding) -> bool:
        """Return whether a key that is not shown first is worth the room: not one that only moves."""
        binding = active.binding
        return (
            active.enabled
            and is_ours(binding)
            and not is_moving(binding)
            and binding.action not in ("suspend_process", "quit", "trust", "retry", "expand", "collapse")
            and not binding.action.startswith(("screen(", "app.screen("))
            and binding.key not in ("escape", "enter")
        )

    def _rank(self, active: ActiveBinding) -> int:
        """Return 0 for a key of the focused part, 1 of its screen, 2 of all screens, 3 of other parts."""
        focused = self.screen.focused
        if not isinstance(active.node, Pane):
            return 0
        of_panel = re.match(r"panel\('([^']+)'", active.binding.action)
        if of_panel is None:
            return 2 if active.binding.id in ("pane.trail", "pane.mentions", "pane.summary") else 1
        return 0 if focused is not None and any(node.id == of_panel[1] for node in focused.ancestors) else 3

    def _key(self, shown: _Shown, *, last: bool = False) -> FooterKey:
        binding = shown.active.binding
        return FooterKey(
            shown.key,
            shown.name,
            shown.said,
            binding.action,
            disabled=not shown.active.enabled,
            tooltip=binding.tooltip or binding.description,
            classes="-compact -last" if last else "-compact",
        )


def _drawn(own: list[_Shown], always: list[_Shown]) -> list[tuple[object, ...]]:
    return [*(each.drawn for each in own), (), *(each.drawn for each in always)]

"""What the parts of a screen have in common, and how a screen offers their keys."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual.containers import Container
from textual.content import Content

from esx.tui.keymap import Keyed, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.binding import Binding, BindingType

    from esx.tui.link import Link


class Part(Keyed, Container):
    """A framed part of a screen.

    `KEYS` are its keys that work wherever the focus is on its screen; those for itself alone go into `BINDINGS`.
    """

    KEYS: ClassVar[list[Binding]] = []
    DEFAULT_CSS = """
    Part {
        border: round $foreground 25%;
        border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
        background: $surface;
        padding: 0;
        height: 1fr;
    }
    Part:focus-within { border: round $primary; border-title-color: $text-primary; border-title-style: bold; }
    """

    def __init__(self, link: Link, *, id: str) -> None:
        super().__init__(id=id, classes="part")
        self.link = link
        self._written: tuple[str, str] = ("", "")

    def entitle(self, title: str | None = None, subtitle: str | None = None) -> None:
        """Write texts, safe to show, into the frame; None leaves one as it is.

        Textual draws the whole part anew for a title, also for the one that is there already.
        """
        before_title, before_subtitle = self._written
        if title is not None and title != before_title:
            self.border_title = Content(title)
            before_title = title
        if subtitle is not None and subtitle != before_subtitle:
            self.border_subtitle = Content(subtitle)
            before_subtitle = subtitle
        self._written = (before_title, before_subtitle)


def keys_of(part_id: str, keys: Iterable[Binding]) -> list[BindingType]:
    """Return a part's keys as its screen offers them, by names like ``events.flip``; see `Pane.action_part`."""
    part = part_id.removesuffix("-part")
    return [replace(key, action=f"part({part_id!r}, {key.action!r})", id=name_of(part, key)) for key in keys]

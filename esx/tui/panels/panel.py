"""Common to the parts of a screen: frame, keys, and the line for searches."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from rich.cells import cell_len
from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Input

from esx.tui.keymap import Keyed, name_of
from esx.tui.panes import pane_of
from esx.tui.session.session import ExplorerSession
from esx.tui.tasks import TYPING, Delay
from esx.tui.widgets.frame import Frame
from esx.tui.widgets.line import Line


class Panel(Keyed, Frame):
    """A framed part of a screen.

    `KEYS` work everywhere on its screen; keys that need the focus in this part go into `BINDINGS`.
    """

    KEYS: ClassVar[list[Binding]] = []
    DEFAULT_CSS = """
    Panel { padding: 0; height: 1fr; }
    """

    def __init__(self, session: ExplorerSession, *, id: str) -> None:
        super().__init__(id=id, classes="panel")
        self.session = session
        self._written: dict[str, str] = {}
        self._title = ""
        self._way: Sequence[str] = ()

    def entitle(self, title: str | None = None, subtitle: str | None = None, *, way: Sequence[str] = ()) -> None:
        """Write texts, safe to show, into the frame; None leaves one as it is.

        `way` are the steps that lead here from the screen, as ``Streams`` and ``orders-1``. They stand before the
        title, the last ones of them where there is no room for all.

        Textual draws the whole part again for a title, even for the same one.
        """
        if title is not None:
            self._title, self._way = title, way
            self._write("border_title", self._with_way())
        if subtitle is not None:
            self._write("border_subtitle", subtitle)

    def _write(self, name: str, text: str) -> None:
        if text != self._written.get(name, ""):
            self._written[name] = text
            setattr(self, name, Content(text))

    def _with_way(self) -> str:
        # The corners and a space on either side.
        room = self.outer_size.width - 6
        for first in range(len(self._way)):
            text = " › ".join((*self._way[first:], self._title))
            if cell_len(text) <= room:
                return text
        return self._title

    def on_resize(self) -> None:
        """Show as much of the way as there is room for."""
        self._write("border_title", self._with_way())

    @property
    def screen_title(self) -> str:
        """The name of the screen that this is a part of."""
        pane = pane_of(self)
        return "" if pane is None else pane.TITLE


class SearchLine(Line):
    """A line to type into, hidden until it is opened. Enter posts `Input.Submitted`."""

    class Typed(Message):
        """Typing has paused."""

    DEFAULT_CSS = """
    SearchLine.-textual-compact {
        display: none;
        height: 1;
        border: none;
        padding: 0 1;
        background: $boost;
        &.-shown { display: block; }
    }
    """

    def __init__(self, placeholder: str, *, id: str) -> None:
        super().__init__(id=id, placeholder=placeholder, compact=True)
        self._typing = Delay(self, TYPING, lambda: self.post_message(self.Typed()))

    @property
    def is_open(self) -> bool:
        """Whether it is shown."""
        return self.has_class("-shown")

    def open(self) -> None:
        """Show the line, and give it the focus."""
        self.add_class("-shown")
        self.focus()

    def close(self) -> None:
        """Empty the line and hide it."""
        self.value = ""
        self.remove_class("-shown")

    @on(Input.Changed)
    def _changed(self, message: Input.Changed) -> None:
        message.stop()
        self._typing.restart()


def keys_of(panel_id: str, keys: Iterable[Binding]) -> list[BindingType]:
    """Return a part's keys for its screen, with names like ``events.flip``; see `StorePane.action_panel`."""
    prefix = panel_id.removesuffix("-panel")
    return [replace(key, action=f"panel({panel_id!r}, {key.action!r})", id=name_of(prefix, key)) for key in keys]

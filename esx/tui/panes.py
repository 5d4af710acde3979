"""What is not shown does not act: this module ensures it.

The explorer's screens are panes, one behind the other, and one of them is shown. What already runs in a hidden pane
goes on, such as a load test. But a hidden pane gets no focus and so no keys, none of its actions run, its clocks stand
still, and tasks that it starts wait until it is shown again.
"""

from collections.abc import Callable
from typing import ClassVar

from textual.containers import Container
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import ContentSwitcher


class Pane(Container):
    """One of the views that share the main screen."""

    TITLE: ClassVar[str] = ""
    """Its name for the user."""
    FIRST_FOCUS: ClassVar[str] = ""
    """The selector of the widget that has the focus at first."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.shown = False
        """Whether it is the visible one; only `MainScreen` sets it."""
        self.wants_focus: Widget | None = None
        """The widget that asked for the focus last: it has it, or gets it when the pane is shown."""
        self._waiting: dict[tuple[DOMNode, str], Callable[[], object]] = {}

    def entered(self) -> None:
        """Do what is due when the pane is shown."""

    def reveal(self, widget: Widget) -> None:
        """Make what gets the focus visible within the pane."""

    def every(self, seconds: float, call: Callable[[], object], *, group: str = "") -> None:
        """Call `call` every so many seconds while this pane is shown, and no task of `group` is running.

        `group` is the one that `call` starts: on a slow server no task would ever end if the next one took its place.
        """
        self.set_interval(seconds, lambda: call() if self.shown and not self.runs(group) else None)

    def runs(self, group: str) -> bool:
        """Return whether a task of this pane in a group is running."""
        return any(each.node is self and each.group == group and not each.is_finished for each in self.workers)

    def postpone(self, node: DOMNode, group: str, task: Callable[[], object]) -> None:
        """Call `task` of a node when this pane is shown, in place of the one that waits in the same group."""
        self.forget(node, group)
        self._waiting[node, group] = task

    def forget(self, node: DOMNode, group: str) -> None:
        """Drop the task that waits."""
        self._waiting.pop((node, group), None)

    def start_postponed(self) -> None:
        """Start the tasks that waited."""
        waiting, self._waiting = self._waiting, {}
        for task in waiting.values():
            task()

    def focus_of(self, chain: list[Widget]) -> Widget | None:
        """Return the widget that gets the focus when this is shown; `chain` has the other candidates."""
        wanted = [] if self.wants_focus is None else [self.wants_focus]
        return next(filter(self._can_have_focus, [*wanted, *self.query(self.FIRST_FOCUS), *chain]), None)

    def _can_have_focus(self, widget: Widget) -> bool:
        inside: list[DOMNode] = []
        for node in widget.ancestors_with_self:
            if node is self:
                return widget.focusable and all(node.display for node in inside)
            inside.append(node)
        return False


class MainScreen(Screen[None]):
    """The screen below every dialog: shows one pane, or a widget in place of them."""

    AUTO_FOCUS = ""

    def __init__(self, instead: str) -> None:
        """`instead` is the id of what is shown in place of a pane."""
        super().__init__(id="_default")
        self._instead = instead
        self.pane: Pane | None = None
        """The pane that is shown."""

    def show(self, pane: Pane | None) -> None:
        """Show a pane, and give it the focus at once, so that it gets the keys that were typed ahead."""
        if self.pane is not None:
            self.pane.shown = False
        self.pane = pane
        self.maximized = None
        switcher = self.query_one(ContentSwitcher)
        switcher.current = self._instead if pane is None else pane.id
        if pane is None:
            self.set_focus(switcher.visible_content)
        else:
            pane.shown = True
            self.set_focus(pane.focus_of(self.focus_chain))
            pane.start_postponed()
            pane.entered()

    def set_focus(self, widget: Widget | None, scroll_visible: bool = True, from_app_focus: bool = False) -> None:
        """Give the focus to a widget; one of a hidden pane gets it when the pane is shown."""
        pane = None if widget is None else pane_of(widget)
        if widget is not None and pane is not None:
            pane.wants_focus = widget
            if not pane.shown:
                return
            pane.reveal(widget)
        super().set_focus(widget, scroll_visible, from_app_focus)

    def on_screen_resume(self) -> None:
        """Restore the focus when a dialog has been closed."""
        if self.focused is None and self.pane is not None and self.app.app_focus:
            self.set_focus(self.pane.focus_of(self.focus_chain))


def pane_of(node: DOMNode) -> Pane | None:
    """Return the pane that a node is part of, None for other nodes, such as a dialog."""
    return next((each for each in node.ancestors_with_self if isinstance(each, Pane)), None)


def is_hidden(node: DOMNode) -> bool:
    """Return whether a node is part of a pane that is not shown."""
    pane = pane_of(node)
    return pane is not None and not pane.shown


def title_if_hidden(node: DOMNode) -> str:
    """Return the name of a node's pane if that is hidden, else an empty text: for messages that come from there."""
    pane = pane_of(node)
    return "" if pane is None or pane.shown else pane.TITLE

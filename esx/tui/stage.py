"""What is not shown does not act: the one place that sees to it.

The explorer's screens stand on a stage, one behind the other, and one of them is seen. What runs on a screen behind it
goes on, such as a load test, but such a screen gets no focus, and with it no keys; none of its actions run; its clocks
stand still; and the work it would begin waits. It gets all of that when it is shown again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Container
from textual.screen import Screen
from textual.widgets import ContentSwitcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.dom import DOMNode
    from textual.widget import Widget


class Scene(Container):
    """One of the screens of the stage."""

    TITLE: ClassVar[str] = ""
    """What the user knows it by."""
    FIRST_FOCUS: ClassVar[str] = ""
    """What has the focus at first."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.shown = False
        """Whether it is the one that is seen; the stage alone sets it."""
        self.wants_focus: Widget | None = None
        """What asked for the focus last: has it, or gets it when the scene is shown."""
        self._waiting: dict[tuple[DOMNode, str], Callable[[], object]] = {}

    def entered(self) -> None:
        """Take note of being shown from now on."""

    def reveal(self, widget: Widget) -> None:
        """Make what gets the focus visible within the scene."""

    def every(self, seconds: float, work: Callable[[], object]) -> None:
        """Call `work` again and again, while this is shown."""
        self.set_interval(seconds, lambda: work() if self.shown else None)

    def postpone(self, node: DOMNode, group: str, work: Callable[[], object]) -> None:
        """Call `work` of a node when this is shown, in place of what waits in the same group."""
        self._waiting.pop((node, group), None)
        self._waiting[node, group] = work

    def forget(self, node: DOMNode, group: str) -> None:
        """Do not call what waits."""
        self._waiting.pop((node, group), None)

    def go_on(self) -> None:
        """Do what waited."""
        waiting, self._waiting = self._waiting, {}
        for work in waiting.values():
            work()

    def focus_of(self, chain: list[Widget]) -> Widget | None:
        """Return what gets the focus when this is shown; `chain` is what else can have it."""
        wanted = [] if self.wants_focus is None else [self.wants_focus]
        return next(filter(self._can_have_focus, [*wanted, *self.query(self.FIRST_FOCUS), *chain]), None)

    def _can_have_focus(self, widget: Widget) -> bool:
        inside: list[DOMNode] = []
        for node in widget.ancestors_with_self:
            if node is self:
                return widget.focusable and all(node.display for node in inside)
            inside.append(node)
        return False


class Stage(Screen[None]):
    """What lies below every dialog: shows one scene, or none but what stands in their place."""

    AUTO_FOCUS = ""

    def __init__(self, instead: str) -> None:
        """`instead` is the id of what is shown in place of a scene."""
        super().__init__(id="_default")
        self._instead = instead
        self.scene: Scene | None = None
        """The scene that is shown."""

    def show(self, scene: Scene | None) -> None:
        """Show a scene, and give it the focus at once: keys that were typed ahead are for what is seen then."""
        if self.scene is not None:
            self.scene.shown = False
        self.scene = scene
        self.maximized = None
        switcher = self.query_one(ContentSwitcher)
        switcher.current = self._instead if scene is None else scene.id
        if scene is None:
            self.set_focus(switcher.visible_content)
        else:
            scene.shown = True
            self.set_focus(scene.focus_of(self.focus_chain))
            scene.go_on()
            scene.entered()

    def set_focus(self, widget: Widget | None, scroll_visible: bool = True, from_app_focus: bool = False) -> None:
        """Give the focus to a widget of the scene that is shown; one of another scene gets it when that is shown."""
        scene = None if widget is None else scene_of(widget)
        if widget is not None and scene is not None:
            scene.wants_focus = widget
            if not scene.shown:
                return
            scene.reveal(widget)
        super().set_focus(widget, scroll_visible, from_app_focus)

    def on_screen_resume(self) -> None:
        """Let something have the focus when a dialog has been closed."""
        if self.focused is None and self.scene is not None and self.app.app_focus:
            self.set_focus(self.scene.focus_of(self.focus_chain))


def scene_of(node: DOMNode) -> Scene | None:
    """Return the scene that a node is part of, None for what belongs to none, such as a dialog."""
    return next((each for each in node.ancestors_with_self if isinstance(each, Scene)), None)


def is_hidden(node: DOMNode) -> bool:
    """Return whether a node is part of a scene that is not shown."""
    scene = scene_of(node)
    return scene is not None and not scene.shown


def from_behind(node: DOMNode) -> str:
    """Return the name of a node's scene if that is not shown, else nothing: for messages that come from there."""
    scene = scene_of(node)
    return "" if scene is None or scene.shown else scene.TITLE

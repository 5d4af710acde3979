"""Background tasks that belong to a widget and end with it."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from textual.dom import DOMNode
from textual.timer import Timer
from textual.widget import Widget
from textual.worker import Worker

from esx.tui.panes import pane_of

Task: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

SETTLE = 0.04
"""Seconds the cursor rests on a row before its details are read."""
TYPING = 0.15
"""Seconds without a key after which typed text is used."""


def start(node: DOMNode, task: Task, group: str) -> None:
    """Run `task` for `node`, in place of the running one of the same group; its failure does not end the explorer.

    In a pane that is not shown it waits until the pane is shown.
    """
    pane = pane_of(node)
    if pane is None or pane.shown:
        _run(node, task, group)
    else:
        cancel(node, group)
        pane.postpone(node, group, partial(_run, node, task, group))


def cancel(node: DOMNode, group: str) -> None:
    """End the task of `node` in a group, running or waiting."""
    node.workers.cancel_group(node, group)
    pane = pane_of(node)
    if pane is not None:
        pane.forget(node, group)


def _run(node: DOMNode, task: Task, group: str) -> None:
    _worker: Worker[None] = node.run_worker(task, group=group, name=group, exclusive=True, exit_on_error=False)


class Delay:
    """Calls something `seconds` after it was last asked for."""

    def __init__(self, widget: Widget, seconds: float, call: Callable[[], object]) -> None:
        self._widget = widget
        self._seconds = seconds
        self._call = call
        self._timer: Timer | None = None

    def restart(self) -> None:
        """Ask for the call, in place of one that waits."""
        self.stop()
        self._timer = self._widget.set_timer(self._seconds, self._call)

    def stop(self) -> None:
        """Drop the call that waits."""
        if self._timer is not None:
            self._timer.stop()

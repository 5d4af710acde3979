"""Work in the background that belongs to a part of the screen, and ends with it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from esx.tui.stage import scene_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeAlias

    from textual.dom import DOMNode
    from textual.worker import Worker

    Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


def start(node: DOMNode, work: Work, group: str) -> None:
    """Run `work` for `node`, in place of what runs in the same group; its failure does not end the explorer.

    On a screen that is not shown it waits until that is.
    """
    scene = scene_of(node)
    if scene is None or scene.shown:
        _run(node, work, group)
    else:
        cancel(node, group)
        scene.postpone(node, group, partial(_run, node, work, group))


def cancel(node: DOMNode, group: str) -> None:
    """End what runs for `node` in a group, or waits to."""
    node.workers.cancel_group(node, group)
    scene = scene_of(node)
    if scene is not None:
        scene.forget(node, group)


def _run(node: DOMNode, work: Work, group: str) -> Worker[None]:
    worker: Worker[None] = node.run_worker(work, group=group, name=group, exclusive=True, exit_on_error=False)
    return worker

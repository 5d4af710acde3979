"""Work in the background that belongs to a part of the screen, and ends with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from textual.dom import DOMNode
    from textual.worker import Worker


def start(node: DOMNode, work: Callable[[], Coroutine[Any, Any, None]], group: str) -> Worker[None]:
    """Run `work` for `node`, in place of what runs in the same group; its failure does not end the explorer."""
    worker: Worker[None] = node.run_worker(work, group=group, name=group, exclusive=True, exit_on_error=False)
    return worker

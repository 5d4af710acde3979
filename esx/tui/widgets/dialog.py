"""What dialogs have in common."""

from __future__ import annotations

from typing import TypeVar

from textual.screen import ModalScreen

from esx.tui.keymap import Keyed

Result = TypeVar("Result")


class Dialog(Keyed, ModalScreen[Result]):
    """Ends only itself: what ends under another dialog waits until that is closed.

    Textual's `dismiss` takes away whatever is on top.
    """

    _ended = False
    _result: Result | None = None

    def end(self, result: Result | None) -> None:
        """End with a result, now or as soon as nothing is above."""
        self._ended, self._result = True, result
        if self.is_active:
            self.dismiss(result)

    def on_screen_resume(self) -> None:
        """End, if that was to be done meanwhile."""
        if self._ended:
            self.dismiss(self._result)

    def action_close(self) -> None:
        """End without a result."""
        self.end(None)

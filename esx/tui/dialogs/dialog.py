"""Common to all dialogs."""

from typing import ClassVar, TypeVar

from textual.binding import Binding
from textual.screen import ModalScreen

from esx.tui.keymap import Keyed

Result = TypeVar("Result")


class Dialog(Keyed, ModalScreen[Result]):
    """Ends only itself: under another dialog it waits until that is closed. Textual's `dismiss` closes the top one."""

    DEFAULT_CSS = "Dialog > * { border-title-color: $text-primary; border-subtitle-color: $text-muted; }"
    _ended = False
    _result: Result | None = None

    def end(self, result: Result | None) -> None:
        """End with a result, now or as soon as this dialog is on top."""
        self._ended, self._result = True, result
        if self.is_active:
            self.dismiss(result)

    def on_screen_resume(self) -> None:
        """End, if `end` was called under another dialog."""
        if self._ended:
            self.dismiss(self._result)

    def action_close(self) -> None:
        """End without a result."""
        self.end(None)


class OptionsDialog(Dialog[Result]):
    """A dialog whose one widget is a list of options."""

    LETTERS: ClassVar[list[Binding]] = [
        Binding("j", "app.simulate_key('down')", "Down", show=False),
        Binding("k", "app.simulate_key('up')", "Up", show=False),
        Binding("q", "app.quit", "Quit", show=False),
    ]
    """Keys for `BINDINGS`."""
    DEFAULT_CSS = """
    OptionsDialog {
        align: center middle;
        OptionList {
            width: 90%; max-width: 110; height: auto; max-height: 90%;
            border: round $primary; background: $surface; padding: 0 1;
            &:focus {
                border: round $primary;
                /* What is muted in an option has to be readable under the cursor too, in a light theme as in a dark. */
                & > .option-list--option-highlighted { background: $row-blurred; color: $foreground; }
            }
        }
    }
    """

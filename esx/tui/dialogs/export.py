"""Exporting what is shown to a file."""

import os
import tempfile
from functools import partial
from pathlib import Path
from time import monotonic
from typing import IO, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Input, Static

from esx.errors import EsxError
from esx.eventstore import EventStore
from esx.files import new_file
from esx.store.views import View
from esx.text import counted, size_of, visible
from esx.tui.cells import MUTED
from esx.tui.dialogs.dialog import Dialog
from esx.tui.tasks import cancel, start
from esx.tui.widgets.line import Line


class ExportDialog(Dialog[str]):
    """Asks for a path, writes the rows of a view there, and ends with a report; escape stops it at any time.

    In a browser the file is a download instead.
    """

    KEYMAP_PREFIX = "export"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]
    DEFAULT_CSS = """
    ExportDialog {
        align: center middle;
        #export-box {
            width: 90%; max-width: 90; height: auto; padding: 1 2;
            border: round $primary; background: $surface;
        }
        Input { padding: 0 1; background: $boost; margin-bottom: 1; }
    }
    """

    def __init__(self, store: EventStore, view: View) -> None:
        super().__init__()
        self._store = store
        self._view = view
        self._agreed: Path | None = None
        self._writing = False

    def compose(self) -> ComposeResult:
        """Lay out the field above the progress."""
        with Container(id="export-box") as box:
            box.border_title = "export what is shown, as NDJSON"
            box.border_subtitle = "enter writes · esc cancels"
            yield Line(self._view.file_name(), id="export-path", select_on_focus=False, compact=True)
            note = "handed to your browser" if self.app.is_web else f"in {visible(os.getcwd(), limit=200)}"
            yield Static(Content.styled(note, MUTED), id="export-note")

    def _say(self, text: str, colour: str = "") -> None:
        self.query_one("#export-note", Static).update(Content.styled(visible(text, limit=300), colour))

    @on(Input.Changed)
    def _changed(self) -> None:
        self._agreed = None

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        if self._writing or not message.value.strip():
            return
        path = Path(message.value.strip()).expanduser()
        if not self.app.is_web and os.path.lexists(path) and path != self._agreed:
            if path.is_symlink() or not path.is_file():
                self._say(f"{path} is not a file: name another", "$text-error")
                return
            self._agreed = path
            self._say(f"{path} is there already: enter again replaces it", "$text-warning")
            return
        self._writing = True
        message.input.disabled = True
        start(self, partial(self._run, path), "export")

    async def _run(self, path: Path) -> None:
        try:
            if self.app.is_web:
                with tempfile.TemporaryFile() as file:
                    text = await self._write(file)
                    file.seek(0)
                    # The browser gets a file of its own, which is closed after the last byte.
                    self.app.deliver_binary(os.fdopen(os.dup(file.fileno()), "rb"), save_filename=path.name)
                self.end(f"{text} handed to your browser")
                return
            with new_file(path, force=path == self._agreed) as file:
                text = await self._write(file)
        except (EsxError, OSError) as error:
            self._writing = False
            field = self.query_one(Input)
            field.disabled = False
            field.focus()
            self._say(str(error), "$text-error")
        else:
            self.end(f"{text} written to {path}")

    async def _write(self, file: IO[bytes]) -> str:
        rows = size = 0
        began = told = monotonic()
        async for piece in self._view.rows(self._store):
            file.write(piece)
            rows += piece.count(b"\n")
            size += len(piece)
            now = monotonic()
            if now - told >= 0.1:
                told = now
                self._say(f"{rows:,} rows, {size_of(size)}, {rows / (now - began):,.0f}/s · esc stops")
        return f"{counted(rows, 'row')}, {size_of(size)},"

    def action_cancel(self) -> None:
        """Stop, and leave nothing behind."""
        cancel(self, "export")
        self.end("export stopped, nothing written" if self._writing else None)

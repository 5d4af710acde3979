"""Progress in place: a few lines on stderr that are written over, if a person is there; lines one by one if not."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from esx.cli.common import narrate
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

_UP_AND_CLEAR = "\x1b[1A\x1b[2K"


class Live:
    """Shows lines in place of those before. Use it as a context manager: the lines are wiped at the end.

    Where stderr is no terminal, `show` says nothing and `keep` says its line. With `quiet` neither says anything.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.in_place = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._shown = 0

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines instead of the last ones; what does not fit the terminal's width is cut."""
        if not self.in_place:
            return
        width = max(shutil.get_terminal_size().columns - 1, 10)
        text = "".join(visible(line)[:width] + "\n" for line in lines)
        sys.stderr.write(_UP_AND_CLEAR * self._shown + text)
        sys.stderr.flush()
        self._shown = len(lines)

    def keep(self, line: str) -> None:
        """Say a line that stays, above those in place."""
        if self._quiet:
            return
        self.wipe()
        narrate(line)

    def wipe(self) -> None:
        """Take the lines away."""
        if self._shown:
            sys.stderr.write(_UP_AND_CLEAR * self._shown)
            sys.stderr.flush()
            self._shown = 0

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_error: object) -> None:
        self.wipe()

"""What commands print: data on stdout, messages and progress on stderr."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import click

from esx.cli.options import mark_incomplete
from esx.text import encodable, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from esx.store.read.order_check import Doubt

_SCREENFUL = 200
_UP_AND_CLEAR = "\x1b[1A\x1b[2K"


_holding: list[Callable[[], bool]] = []
_later: list[str] = []


def narrate(text: str) -> None:
    """Print a message on stderr."""
    if _on_hold():
        _later.append(text)
    else:
        click.echo(visible(text), err=True)


@contextlib.contextmanager
def held_back(busy: Callable[[], bool]) -> Iterator[None]:
    """Keep messages back while the screen is `busy`, and print them at the end of the ``with`` block."""
    _holding.append(busy)
    try:
        yield
    finally:
        _holding.pop()
        while _later:
            narrate(_later.pop(0))


def _on_hold() -> bool:
    return any(busy() for busy in _holding)


def incomplete(missing: str) -> None:
    """Say what is missing and how to get it. The command goes on, and exits with 4 at its end.

    An answer is incomplete where a bound of esx's own, not one that the user set, or a value that cannot be read
    leaves something out.
    """
    narrate(missing)
    mark_incomplete()


def say_doubt(doubt: Doubt) -> None:
    """Say what is uncertain about the place of a time. If events are known to be out of order, that is incomplete."""
    (incomplete if doubt.broken else narrate)(doubt.text)


def progress() -> Callable[[str], None] | None:
    """Return the function to report progress with, None where stderr is not a terminal."""
    return narrate if sys.stderr.isatty() else None


class ProgressLine:
    """Shows how far the work is, on one line of the terminal that is cleared at the end of the ``with`` block.

    Shows nothing where stderr is not a terminal, or with `quiet`, as where data are printed to the same terminal.
    """

    _every = 0.1
    """Seconds from one report to the next."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._shown = sys.stderr.isatty() and not quiet
        self._next = 0.0
        self._dirty = False

    def __call__(self, text: str) -> None:
        """Show `text`, unless the last report was only a moment ago."""
        now = time.monotonic()
        if self._shown and now >= self._next and not _on_hold():
            self._next = now + self._every
            self._dirty = True
            click.echo(f"\r\x1b[K{visible(text)}", err=True, nl=False)

    def clear(self) -> None:
        """Clear the line, so that something else can be printed there."""
        if self._dirty:
            self._dirty = False
            click.echo("\r\x1b[K", err=True, nl=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.clear()


class Meter(ProgressLine):
    """A progress line with a count of `noun`, how many there are a second, and the share done."""

    _every = 0.2

    def __init__(self, *, quiet: bool = False, noun: str = "events") -> None:
        super().__init__(quiet=quiet)
        self._noun = noun
        self._began = time.monotonic()
        self._next = self._began + self._every

    def update(self, count: int, share: float | None = None) -> None:
        """Show how many are done and, if known, the `share` done, from 0 to 1."""
        done = "" if share is None else f"  {min(share, 1.0):.0%}"
        self(f"{count:,} {self._noun}  {self.rate(count):,.0f}/s{done}")

    def rate(self, count: int) -> float:
        """Return how many that is a second since the start."""
        return count / max(time.monotonic() - self._began, 1e-6)


class Live:
    """Shows lines on stderr in place of those before; they are cleared at the end of the ``with`` block.

    Where stderr is not a terminal, `show` prints nothing and `keep` prints its line. With `quiet` neither does.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.in_place = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._shown = 0

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines instead of the last ones, cut to the terminal's width."""
        if not self.in_place:
            return
        width = max(shutil.get_terminal_size().columns - 1, 10)
        text = "".join(visible(line)[:width] + "\n" for line in lines)
        sys.stderr.write(_UP_AND_CLEAR * self._shown + text)
        sys.stderr.flush()
        self._shown = len(lines)

    def keep(self, line: str) -> None:
        """Print a line that stays, above those in place."""
        if not self._quiet:
            self.wipe()
            narrate(line)

    def wipe(self) -> None:
        """Clear the lines."""
        if self._shown:
            sys.stderr.write(_UP_AND_CLEAR * self._shown)
            sys.stderr.flush()
            self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.wipe()


class OutputLines:
    """Prints lines of data to stdout.

    JSON keeps every character where stdout is a file or a pipe. On a terminal, control and reordering characters
    inside its strings are escaped (``\\u009b``): the same JSON, and nothing that the terminal would obey.
    """

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()

    def painted(self, line: str) -> None:
        """Print a line whose parts are safe for a terminal already, and may be in colour."""
        sys.stdout.write(line + "\n")

    def json(self, line: str) -> None:
        """Print a line of JSON."""
        line = encodable(line)
        sys.stdout.write((_escape(line) if self._terminal else line) + "\n")

    def value(self, value: Any) -> None:
        """Print a value as a line of JSON."""
        self.json(json.dumps(value, ensure_ascii=False))

    def ndjson(self, piece: bytes) -> None:
        """Print whole lines of JSON that are bytes already."""
        if self._terminal:
            for line in piece.decode().removesuffix("\n").split("\n"):
                self.json(line)
        else:
            sys.stdout.buffer.write(piece)

    def text(self, *lines: str) -> None:
        """Print lines for people; characters that a terminal would obey are shown instead."""
        sys.stdout.writelines(f"{visible(line)}\n" for line in lines)

    def flush(self) -> None:
        """Hand over to the reader what has been printed."""
        sys.stdout.flush()

    async def room(self) -> None:
        """Wait while a pager is far behind, without holding up what else runs here."""
        wait = getattr(sys.stdout, "room", None)
        if wait is not None:
            await wait()


def _escape(line: str) -> str:
    if not line.isascii():
        line = "".join(char if visible(char) == char else json.dumps(char)[1:-1] for char in line)
    return line.replace("\x7f", "\\u007f")


class OutputTable:
    """Aligns lines a screenful at a time, so that the first of a million appears at once.

    `right` are the columns that are aligned to the right.
    """

    def __init__(self, lines: OutputLines, titles: tuple[str, ...], right: set[int]) -> None:
        self._lines = lines
        self._titles = titles
        self._right = right
        self._rows: list[tuple[str, ...]] = []
        self._headed = False

    def add(self, row: tuple[str, ...]) -> None:
        """Add a row; it is printed with those of its screenful."""
        self._rows.append(row)
        if len(self._rows) >= _SCREENFUL:
            self.flush()

    def flush(self) -> None:
        """Print the rows that were added."""
        if not self._rows:
            return
        if not self._headed:
            self._rows.insert(0, self._titles)
            self._headed = True
        widths = [max(len(cell) for cell in column) for column in zip(*self._rows, strict=True)]
        for row in self._rows:
            cells = [
                cell.rjust(width) if place in self._right else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self._lines.text("  ".join(cells).rstrip())
        self._lines.flush()
        self._rows.clear()

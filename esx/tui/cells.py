"""Text in cells of the terminal: cutting, padding, and the steady colour of a type."""

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.style import Style

from esx.text import visible

MUTED = "$quiet"
"""The style of what matters less, for `Content`."""


_LONGEST_ID = 1000
_OPAQUE = re.compile(r"[0-9a-f]{8,}|[0-9]+", re.IGNORECASE)
"""What comes before the first - of an id that names no category, such as a UUID."""


class Cell(NamedTuple):
    """A cell of a list: text that is safe to show, its role, and the name whose colour it gets, if any.

    Roles: empty (plain), ``muted``, ``strong``, ``number``, ``problem``.
    """

    text: str
    role: str = ""
    tint: str | None = None


def fit(text: str, width: int, *, right: bool = False, middle: bool = False) -> str:
    """Return `text` in exactly `width` cells: padded, or cut with an ellipsis, at its end or in its `middle`."""
    if width <= 0:
        return ""
    if middle and len(text) * 2 > width and (size := cell_len(text[:_LONGEST_ID])) > width > 3:
        head = (width - 1) // 2
        tail = width - 1 - head
        end = text[max(len(text) - tail, 0) :]
        while cell_len(end) > tail:
            end = end[1:]
        return set_cell_size(text, width - 1 - cell_len(end)) + "…" + end
    # The rest cannot be seen, and measuring it would take time.
    if len(text) > width * 8 + 64:
        text = text[: width * 8 + 64]
    size = cell_len(text)
    if size == width:
        return text
    if size > width:
        return set_cell_size(text, width - 1) + "…"
    padding = " " * (width - size)
    return padding + text if right else text + padding


def line_of(text: str, place: int, width: int) -> str:
    """Return a line, in exactly `width` cells, of a text in place of rows: of several where one has too little room."""
    lines = wrap_words(visible(text, limit=1000), max(width - 2, 8))
    return fit(f" {lines[place]}" if place < len(lines) else "", width)


class _Failures:
    words: tuple[str, ...] = ()


def tell_failures_by(words: Sequence[str]) -> None:
    """Show types with one of these words in their names as failures, from now on."""
    _Failures.words = tuple(word.lower() for word in words)
    tint_style.cache_clear()


def tint_of(event_type: str, stream_id: str) -> str:
    """Return the name of the colour of a type: one hue for the types of a category."""
    category, dash, _ = stream_id.partition("-")
    # Where ids are not named by their category, each type has its own hue.
    return f"{event_type}\0{category}" if dash and not _OPAQUE.fullmatch(category) else f"{event_type}\0"


def says_failure(event_type: str) -> bool:
    """Return whether the name of a type says that something failed."""
    name = event_type.lower()
    return any(word in name for word in _Failures.words)


def tint_colour(name: str, ground: str) -> str:
    """Return a colour of `tint_of` as ``#RRGGBB``: the same in every run, readable on the background `ground`.

    Red is only for what says failure.
    """
    from esx.tui.contrast import of_hue

    event_type, _, category = name.partition("\0")
    if says_failure(event_type):
        return of_hue(0.0, 0.80, 0.0, ground)
    hue = (35 + _number(category or event_type) % 13 * 23) / 360
    # A little lighter or darker, so that the types of a category are told apart.
    shade = (_number(event_type) % 3 - 1) * 0.05
    return of_hue(hue, 0.5, shade, ground)


def _number(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "replace"))


@lru_cache(maxsize=1024)
def tint_style(name: str, ground: str) -> Style:
    """Return the colour of `name` as a style; failures are bold, for those who see no colours."""
    return Style(color=tint_colour(name, ground), bold=True if says_failure(name.partition("\0")[0]) else None)


def wrap(text: str, width: int) -> list[str]:
    """Return `text` in pieces of at most `width` cells, at least one piece."""
    pieces = []
    start = used = 0
    for at, char in enumerate(text):
        cells = cell_len(char)
        if used + cells > width and used:
            pieces.append(text[start:at])
            start, used = at, 0
        used += cells
    return [*pieces, text[start:]]


def wrap_words(text: str, width: int) -> list[str]:
    """Return `text` in pieces of at most `width` cells, broken between words where there are any."""
    pieces: list[str] = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        if line:
            pieces.append(line)
        *whole, line = _broken(word, width)
        pieces += whole
    return [*pieces, line]


def _broken(word: str, width: int) -> list[str]:
    """Break a word that is too long, after a slash where there is one, as in addresses."""
    pieces = []
    while cell_len(word) > width:
        piece = wrap(word, width)[0]
        behind = piece.rfind("/") + 1
        piece = piece[:behind] if behind > len(piece) // 3 else piece
        pieces.append(piece)
        word = word[len(piece) :]
    return [*pieces, word]

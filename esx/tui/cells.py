"""Text in cells of the terminal: cutting, padding, and the steady colour of a type."""

import zlib
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.style import Style

MUTED = "$foreground 60%"
"""The style of what matters less, for `Content`."""


class Cell(NamedTuple):
    """A cell of a list: text that is safe to show, its role, and the name whose colour it gets, if any.

    Roles: empty (plain), ``muted``, ``strong``, ``number``, ``problem``.
    """

    text: str
    role: str = ""
    tint: str | None = None


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Return `text` in exactly `width` cells: padded, or cut with an ellipsis."""
    if width <= 0:
        return ""
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


def tint_colour(name: str, dark: bool) -> str:
    """Return the colour of `name` as ``#RRGGBB``: the same in every run, readable on dark or light backgrounds."""
    from textual.color import Color

    hue = zlib.crc32(name.encode("utf-8", "replace")) % 14 / 14
    return Color.from_hsl(hue, 0.55 if dark else 0.65, 0.70 if dark else 0.33).hex


@lru_cache(maxsize=1024)
def tint_style(name: str, dark: bool) -> Style:
    """Return the colour of `name` as a style."""
    return Style(color=tint_colour(name, dark))


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

"""Text in cells of the terminal: cutting, padding, and the steady colour of a type."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.color import Color as RichColor
from rich.style import Style

if TYPE_CHECKING:
    from collections.abc import Iterable

_HUES = 14

MUTED = "$foreground 60%"
"""The style of what matters less, for `Content`."""


class Cell(NamedTuple):
    """A cell of a list: text that is safe to show, its role, and what decides its colour, if anything does.

    Roles: empty (plain), ``muted``, ``strong``, ``number``.
    """

    text: str
    role: str = ""
    tint: str | None = None


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Return `text` in exactly `width` cells: padded, or cut with an ellipsis."""
    if width <= 0:
        return ""
    # What cannot be seen need not be measured.
    if len(text) > width * 8 + 64:
        text = text[: width * 8 + 64]
    size = cell_len(text)
    if size == width:
        return text
    if size > width:
        return set_cell_size(text, width - 1) + "…"
    padding = " " * (width - size)
    return padding + text if right else text + padding


@lru_cache(maxsize=1024)
def tint_style(name: str, dark: bool) -> Style:
    """Return the colour that belongs to `name`: the same in every run, readable on dark or light backgrounds."""
    from textual.color import Color

    hue = zlib.crc32(name.encode("utf-8", "replace")) % _HUES / _HUES
    red, green, blue = Color.from_hsl(hue, 0.55 if dark else 0.65, 0.70 if dark else 0.33).rgb
    return Style.from_color(RichColor.from_rgb(red, green, blue))


def tint_colour(name: str, dark: bool) -> str:
    """Return the colour that belongs to `name` as ``#rrggbb``, for `Content`."""
    colour = tint_style(name, dark).color
    assert colour is not None
    assert colour.triplet is not None
    return colour.triplet.hex


_BARS = "▁▂▃▄▅▆▇█"


def spark(values: Iterable[float], width: int) -> str:
    """Return values as bars in exactly `width` cells, the newest on the right; where there is no room, added up.

    The lowest bar is zero to an eighth of the highest value; no bar at all is where there is no value yet.
    """
    if width <= 0:
        return ""
    values = list(values)
    size = -(-len(values) // width) or 1
    first = len(values) % size
    parts = [values[:first]] if first else []
    parts += [values[at : at + size] for at in range(first, len(values), size)]
    # Means, so that a part of fewer values is no lower than the others.
    heights = [sum(part) / len(part) for part in parts]
    highest = max(heights, default=0)
    bars = "".join(_BARS[min(int(height / highest * 8), 7)] if highest else _BARS[0] for height in heights)
    return bars.rjust(width)


def count_of(number: int) -> str:
    """Return a count for people, short: ``9,876``, ``120k``, ``1.2M``."""
    if number < 10_000:
        return f"{number:,}"
    if number < 999_500:
        return f"{number / 1000:.0f}k"
    return f"{number / 1_000_000:.1f}M".replace(".0M", "M")


def size_of(count: float) -> str:
    """Return a number of bytes for people: ``812 B``, ``4.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


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
    """Return a word that may be too long in pieces, broken behind a slash where there is one, as in addresses."""
    pieces = []
    while cell_len(word) > width:
        piece = wrap(word, width)[0]
        behind = piece.rfind("/") + 1
        piece = piece[:behind] if behind > len(piece) // 3 else piece
        pieces.append(piece)
        word = word[len(piece) :]
    return [*pieces, word]

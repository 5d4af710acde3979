"""Looking at the screen as text in several sizes, and at whether it can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual._context import visible_screen_stack
from textual.color import Color

from esx.tui.contrast import LEAST, contrast
from tests.tui.helpers import lines_of, no_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.pilot import Pilot

    from esx.tui.app import Explorer

SIZES = ((100, 30), (120, 40), (200, 55))
"""The sizes of pictures in text, beside those as SVG."""


async def texts_of(
    app: Explorer, pilot: Pilot[None], sizes: Sequence[tuple[int, int]], expected: Sequence[str] = ()
) -> list[str]:
    """Return the screen as text in each size, as soon as it is the expected one, or once it no longer changes."""
    before, texts = app.size, []
    for at, size in enumerate(sizes):
        with no_frames():
            await pilot.resize_terminal(*size)
        wanted = expected[at] if at < len(expected) else None
        last, same = "", 0
        while same < (60 if wanted else 8) and last != wanted:
            await pilot.pause(0.05)
            text = "\n".join(line.rstrip() for line in lines_of(app))
            same, last = (same + 1 if text == last else 0), text
        texts.append(last)
    await pilot.resize_terminal(*before)
    return texts


def unreadable(app: Explorer) -> list[str]:
    """Return the texts on screen that hardly differ from what is behind, but for what is disabled or below a dialog."""
    shown = [widget.region for widget in app.screen.children]
    disabled = [widget.region for widget in app.screen.query("*") if widget.disabled]
    visible_screen_stack.set([])
    found = []
    for y, strip in enumerate(app.screen._compositor.render_strips()):
        x = 0
        for text, style, _ in strip:
            here = [region for region in shown if region.contains(x, y)]
            matters = here and not any(region.contains(x, y) for region in disabled) and any(map(str.isalnum, text))
            if matters and style is not None and style.color and style.bgcolor:
                ink, ground = Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor)
                if contrast(ink, ground) < LEAST - 0.15:
                    found.append(f"{text.strip()}: {ink.hex} on {ground.hex}, {contrast(ink, ground):.1f}")
            x += cell_len(text)
    return found

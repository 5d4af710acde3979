"""A payload that is no JSON, as lines: text as it is, bytes as hexadecimal digits."""

import json

from esx.payloads.decoding import Decoded
from esx.payloads.hexdump import hex_lines
from esx.text import visible
from esx.tui.cells import wrap, wrap_words
from esx.tui.event.blocks import TextBlock
from esx.tui.event.jsonlayout import Span

_MOST = 64_000
_PLACE = 4


def how_lines(decoded: Decoded, width: int) -> TextBlock:
    """Return how a payload was decoded, or why not."""
    return TextBlock(
        [[Span(piece, "label")] for piece in wrap_words(visible(decoded.how, limit=600), max(width - 1, 8))]
    )


def payload_lines(decoded: Decoded, width: int) -> TextBlock:
    """Return the lines of a payload that is not decoded to JSON; large ones are cut, which the last line says."""
    text = decoded.text
    if text is None:
        lines = hex_lines(decoded.raw, width - 1)
        return TextBlock([[Span(line[:_PLACE], "label"), Span(line[_PLACE:])] for line in lines])
    shown = [[Span(piece)] for line in text[:_MOST].splitlines() for piece in wrap(visible(line), max(width - 1, 8))]
    copies = dict.fromkeys(range(len(shown)), json.dumps(text, ensure_ascii=False))
    if len(text) > _MOST:
        shown.append([Span(f"… {len(text) - _MOST:,} characters more", "label")])
    return TextBlock(shown, copies)

"""Colours of what commands print: few, from the terminal's own palette, so that they suit a dark and a light one."""

from __future__ import annotations

import os
import sys
import zlib

_HUES = ("36", "32", "35", "94")
_FAILURE = ("fail", "reject", "declin", "error", "denied", "refus", "abort")
MUTED, STRONG, FAILED = "2", "1", "31"


def coloured(choice: str) -> bool:
    """Return whether to print colours on stdout: `choice` is always, never, or auto, which honours NO_COLOR."""
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def says_failure(event_type: str) -> bool:
    """Return whether the name of a type says that something has failed."""
    lower = event_type.lower()
    return any(word in lower for word in _FAILURE)


def hue(stream_id: str, event_type: str) -> str:
    """Return the colour of an event's type: that of its category, or red where the type says failure."""
    if says_failure(event_type):
        return FAILED
    category = stream_id.partition("-")[0]
    return _HUES[zlib.crc32(category.encode("utf-8", "replace")) % len(_HUES)]


def paint(text: str, code: str) -> str:
    """Return text that is safe to show in a colour; an empty `code` or text stays plain."""
    return f"\x1b[{code}m{text}\x1b[0m" if code and text else text

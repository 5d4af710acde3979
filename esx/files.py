"""Files that take their name once they are complete."""

from __future__ import annotations

import secrets
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_NAME = 40


def open_part(path: Path) -> IO[bytes]:
    """Open a new file beside `path`, to be moved there when it is complete; its ``name`` is a path of its own.

    Raises OSError.
    """
    # Of its own, because another may be writing to the same file; short, because names may have no more than 255 bytes.
    return path.with_name(f"{path.name[:_NAME]}.{secrets.token_hex(4)}.part").open("xb")

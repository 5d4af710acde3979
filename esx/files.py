"""Files that take their name once they are complete."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = 40


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write to, which takes its name once the block ends well; else nothing is left of it.

    Raises OSError.
    """
    # A name of its own, as another may be writing to the same file; short, as names may have no more than 255 bytes.
    written = path.with_name(f"{path.name[:_NAME]}.{secrets.token_hex(4)}.part")
    file = written.open("xb")
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise

"""File locks, which the kernel takes back when a process ends, however it ends."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from esx.embedded.account import open_file
from esx.embedded.errors import EmbeddedFailed
from esx.embedded.patience import POLL, RECOVERY_PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from esx.embedded.account import Account


@contextmanager
def guard(path: Path, version: int, account: Account | None, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock under which servers are started and stopped: the one on the file `path`."""
    file = open_file(path, os.O_RDWR, account)
    try:
        began = time.monotonic()
        told = False
        while not try_lock(file, exclusive=True):
            waited = time.monotonic() - began
            if waited > 1 and not told:
                tell(f"waiting for another esx that starts or stops PostgreSQL {version}")
                told = True
            if waited > RECOVERY_PATIENCE:
                raise EmbeddedFailed(f"another process has held {path} for {waited:.0f} s: end it, or pass --dsn")
            time.sleep(POLL)
        yield
    finally:
        os.close(file)


def try_lock(file: int, *, exclusive: bool) -> bool:
    """Lock an open file, or change the lock it has, if no other process prevents that."""
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(file: int, *, exclusive: bool) -> None:
    """Lock an open file, or change the lock it has, once no other process prevents that."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)

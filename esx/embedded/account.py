"""The account that a server runs as where esx runs as root, and the files that are that account's."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esx.embedded.errors import EmbeddedFailed, reason

_ROOTS_STAND_IN = "pgserver"


@dataclass(frozen=True)
class Account:
    """The user that a server runs as where esx runs as root, which PostgreSQL refuses to run as."""

    uid: int
    gid: int


def account_for(data_dir: Path) -> Account | None:
    """Return whom to run the server as: None for this user, else the owner of the data, or a user made for it."""
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError, NotADirectoryError):
        status = data_dir.stat()
        if status.st_uid != 0:
            return Account(status.st_uid, status.st_gid)
    import pwd

    trouble = ""
    for attempt in range(20):
        with suppress(KeyError):
            entry = pwd.getpwnam(_ROOTS_STAND_IN)
            return Account(entry.pw_uid, entry.pw_gid)
        if attempt:
            time.sleep(0.2)  # another useradd holds the lock of /etc/passwd
        try:
            done = subprocess.run(
                ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _ROOTS_STAND_IN],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            trouble = str(error)
            break
        trouble = reason(done.stderr)
    raise EmbeddedFailed(
        f"PostgreSQL does not run as root, and the user {_ROOTS_STAND_IN} cannot be made ({trouble}): "
        "run esx as another user, or pass --dsn"
    )


def as_user(account: Account | None) -> dict[str, Any]:
    """Return the arguments with which `subprocess` runs a program as `account`."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def let_through(path: Path) -> None:
    """Let other users pass the directories above `path`, without letting them list what is in there."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            with suppress(OSError):  # starting the server says what it cannot reach
                parent.chmod((mode & 0o7777) | 0o001)


def let_read(programs: Path) -> None:
    """Let other users run the wheel's programs, which root may have installed for itself alone."""
    if (programs / "bin" / "postgres").stat().st_mode & 0o005 == 0o005 and programs.stat().st_mode & 0o005 == 0o005:
        return
    for place in (programs, *programs.rglob("*")):
        if not place.is_symlink():
            mode = place.stat().st_mode & 0o7777
            with suppress(OSError):
                place.chmod(mode | 0o004 | (0o001 if mode & 0o100 else 0))


def own(path: Path, account: Account | None) -> None:
    """Give a file or directory to the server's user."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def open_file(path: Path, flags: int, account: Account | None) -> int:
    """Open a file that only the server's user may use, making it if need be."""
    file = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if account is not None and os.fstat(file).st_uid == 0:
        os.fchown(file, account.uid, account.gid)
    return file


def write_file(path: Path, text: str, account: Account | None) -> None:
    """Replace a file's content, all of it or nothing."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            if account is not None:
                os.fchown(file.fileno(), account.uid, account.gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

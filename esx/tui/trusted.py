"""The owners whose code may run when a store is read, as the user has said once for each database."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from esx.embedded import data_directory

if TYPE_CHECKING:
    from collections.abc import Mapping


class Trusted:
    """Remembers owners by the place of their database, in a file that only this user may read and write.

    A file that cannot be read counts as empty, and one that cannot be written means being asked again.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._path = data_directory(environ).expanduser() / "trusted.json"

    def knows(self, place: str, owner: str) -> bool:
        """Return whether this owner is trusted there."""
        return owner in self._owners(place)

    def add(self, place: str, owner: str) -> bool:
        """Trust this owner there from now on; return whether that could be written down."""
        known = self._read()
        known[place] = sorted({*self._owners(place), owner})
        written = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(written, "x", encoding="utf-8", opener=_private) as file:
                json.dump(known, file, indent=1)
            written.replace(self._path)
        except OSError:
            written.unlink(missing_ok=True)
            return False
        return True

    def _owners(self, place: str) -> list[str]:
        owners = self._read().get(place)
        return [each for each in owners if isinstance(each, str)] if isinstance(owners, list) else []

    def _read(self) -> dict[str, object]:
        try:
            if self._path.stat().st_uid != os.geteuid():
                return {}
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)

"""The owners whose code may run when a store is read: the user decides once for each database."""

import json
import os
from collections.abc import Mapping

from esx.embedded import data_directory
from esx.files import new_file


class Trusted:
    """Remembers owners by the place of their database, in a file that only this user may read and write.

    A file that cannot be read counts as empty; if it cannot be written, the user is asked again next time.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._path = data_directory(environ).expanduser() / "trusted.json"

    def knows(self, place: str, owner: str) -> bool:
        """Return whether this owner is trusted there."""
        return owner in self._owners(place)

    def add(self, place: str, owner: str) -> bool:
        """Trust this owner there from now on; return whether that could be saved."""
        known = self._read()
        known[place] = sorted({*self._owners(place), owner})
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with new_file(self._path, force=True, private=True) as file:
                file.write(json.dumps(known, indent=1).encode())
        except OSError:
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

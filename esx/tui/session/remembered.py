"""How the user has divided the screens: kept in a file from one session to the next."""

import json
from collections.abc import Sequence
from pathlib import Path

from esx.files import new_file


class Remembered:
    """Keeps lists of numbers by name, in a file. Without a path, or where that cannot be written, for this session."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, list[int]] | None = None

    def get(self, name: str, usual: Sequence[int]) -> list[int]:
        """Return the numbers with this name, the usual ones if there are none of that length."""
        if self._known is None:
            self._known = self._read()
        known = self._known.get(name, [])
        return list(known if len(known) == len(usual) else usual)

    def set(self, name: str, numbers: Sequence[int]) -> None:
        """Keep numbers, for all sessions if they can be written down."""
        if self._known is None:
            self._known = self._read()
        self._known[name] = list(numbers)
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with new_file(self._path, force=True, private=True) as file:
                file.write(json.dumps(self._known, indent=1).encode())
        except OSError:
            self._path = None

    def _read(self) -> dict[str, list[int]]:
        if self._path is None:
            return {}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {
            name: numbers
            for name, numbers in found.items()
            if isinstance(numbers, list) and all(isinstance(each, int) and 0 < each < 1000 for each in numbers)
        }

"""Bookmarks of events and streams, each with a note, kept for each connection in a file of the user."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from esx.database_choice import Database
from esx.embedded import data_directory
from esx.errors import EsxError
from esx.files import new_file
from esx.locators import Locator, parse_locator
from esx.text import iso_utc, visible

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def kept_for(database: Database) -> str:
    """Return what the bookmarks of a database are kept for: the name of its connection, else its address."""
    return connection_of(database) or database.label


def connection_of(database: Database) -> str | None:
    """Return the name by which a locator leads to a database, None where it has none."""
    return database.name or ("embedded" if database.embedded else None)


class BookmarksUnusable(EsxError):
    """The file of bookmarks cannot be read or written. The message is one line with its path."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A place with a note. `database` is what it is kept for: a connection's name, else the database's address."""

    database: str
    locator: Locator
    note: str
    made_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        return {
            "database": self.database,
            "locator": self.locator.text,
            "note": self.note,
            "made_at": iso_utc(self.made_at),
        }


class Bookmarks:
    """The bookmarks in one file, a line of JSON each, in the order in which they were made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Return those of the user: ``bookmarks.ndjson`` in the directory for esx's data."""
        return cls(data_directory(environ).expanduser() / "bookmarks.ndjson")

    def all(self) -> list[Bookmark]:
        """Return all of them. Raises BookmarksUnusable."""
        try:
            lines = self.path.read_bytes().decode().splitlines()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable("read", error) from None
        found = []
        for number, line in enumerate(lines, 1):
            try:
                given = json.loads(line)
                made_at = datetime.fromisoformat(given["made_at"])
                found.append(Bookmark(given["database"], parse_locator(given["locator"]), given["note"], made_at))
            except (ValueError, KeyError, TypeError) as error:
                raise BookmarksUnusable(
                    f"line {number} of {visible(str(self.path))} is no bookmark ({visible(str(error), limit=80)}): "
                    "remove that line"
                ) from None
        return found

    def of_database(self, database: str) -> list[Bookmark]:
        """Return those of a database. Raises BookmarksUnusable."""
        return [each for each in self.all() if each.database == database]

    def add(self, database: str, locator: Locator, note: str = "", now: datetime | None = None) -> Bookmark:
        """Keep a place, and return its bookmark. Raises BookmarksUnusable."""
        made = Bookmark(database, locator, note, now or datetime.now(UTC))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One write of one line at the end, so that two processes do not lose each other's.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_LINK, 0o600)
            try:
                os.write(descriptor, _line(made))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unusable("written", error) from None
        return made

    def remove(self, bookmark: Bookmark) -> bool:
        """Forget a bookmark; return whether it was there. Raises BookmarksUnusable."""
        kept = self.all()
        if bookmark not in kept:
            return False
        kept.remove(bookmark)
        try:
            with new_file(self.path, force=True) as file:
                file.write(b"".join(map(_line, kept)))
        except OSError as error:
            raise self._unusable("written", error) from None
        return True

    def _unusable(self, what: str, error: Exception) -> BookmarksUnusable:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return BookmarksUnusable(f"{visible(str(self.path))} cannot be {what}: {visible(reason, limit=200)}")


def _line(bookmark: Bookmark) -> bytes:
    return json.dumps(bookmark.to_json()).encode() + b"\n"

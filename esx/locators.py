"""Locators: where an event or a stream is, as a text that another person can open: ``esx://shop/orders-42@7``.

The name is that of a connection in the reader's own config file, so that no locator leads to another server than the
reader chose. It is ``embedded`` for the PostgreSQL that comes with esx, and empty for the database that is meant
anyway.
"""

from dataclasses import dataclass
from urllib.parse import quote, unquote

from esx.text import visible

SCHEME = "esx://"
_FORMS = "esx://CONNECTION/STREAM@NUMBER, esx://CONNECTION/STREAM, or esx://CONNECTION/$all@GLOBAL_SEQ"
_PLAIN = "$!*'(),;:=+~"
"""Characters that stay as they are; letters, digits, ``_.-`` do too."""


@dataclass(frozen=True, slots=True)
class Locator:
    """A stream, or with `stream` None all of them, and an event of it by its number there.

    `connection` is the name of a connection, None for the database that is meant anyway.
    """

    connection: str | None
    stream: str | None
    number: int | None = None

    @property
    def text(self) -> str:
        """The locator as a text that `parse_locator` reads; a shell takes it in single quotes."""
        stream = "$all" if self.stream is None else quote(self.stream, _PLAIN, errors="surrogateescape")
        if self.stream == "$all":
            stream = "%24all"
        number = "" if self.number is None else f"@{self.number}"
        return f"{SCHEME}{quote(self.connection or '', '')}/{stream}{number}"


def parse_locator(text: str) -> Locator:
    """Return the locator that `text` is. Raises ValueError, in one line."""
    plain = text.strip()
    if not plain.startswith(SCHEME):
        raise ValueError(f"{_shown(text)} is no locator: {_FORMS}")
    connection, slash, place = plain.removeprefix(SCHEME).partition("/")
    stream, at, number = place.rpartition("@")
    if not at:
        stream, number = place, ""
    if not slash or not stream:
        raise ValueError(f"{_shown(text)} names no stream: {_FORMS}")
    if "/" in stream:
        raise ValueError(f"{_shown(text)} has a / in its stream: write %2F")
    if at and not (number.isascii() and number.isdigit() and len(number) < 20 and int(number) < 2**63):
        raise ValueError(f"{_shown(text)} has no number after its last @: write %40 for an @ in a stream's id")
    return Locator(
        unquote(connection) or None,
        None if stream == "$all" else unquote(stream, errors="surrogateescape"),
        int(number) if number else None,
    )


def _shown(text: str) -> str:
    return repr(visible(text, limit=80))

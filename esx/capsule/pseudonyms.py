"""Pseudonyms: the same for the same value, made with a key that is thrown away.

They have the form of the value (a text, a number, a UUID), so that programs which read the events still can, and
nothing of what it says. Their letters come in fours, so that no word of six letters can be in them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid

from esx.capsule.spellings import UUID, is_plain_number, plain_number
from esx.fold.value import Number


class Pseudonyms:
    """Makes pseudonyms with one key, which is nowhere but here."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def text(self, value: str) -> str:
        """Return the pseudonym of a text; that of a UUID is a UUID, and that of a number in digits the number's."""
        if UUID.fullmatch(value):
            return str(uuid.UUID(bytes=self._digest(value.lower())[:16], version=4))
        if is_plain_number(value):
            return str(self.number(value))
        digest = self._digest(value)
        return f"x{'-'.join(digest[at : at + 2].hex() for at in (0, 2, 4, 6, 8))}"

    def number(self, value: str) -> Number:
        """Return the pseudonym of a number, of which `value` is a text: a whole number of 15 digits."""
        return Number(10**14 + int.from_bytes(self._digest(plain_number(value))[:8], "big") % (9 * 10**14))

    def truth(self, value: bool) -> bool:
        """Return the pseudonym of true or false: it or the other, the same each time."""
        return value != bool(self._digest("")[0] & 1)

    def _digest(self, value: str) -> bytes:
        return hmac.digest(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256)

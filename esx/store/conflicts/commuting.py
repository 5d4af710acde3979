"""Which pairs of event types commute, by a rule of the user."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from esx.errors import InvalidQuery
from esx.glob import glob_to_regex
from esx.text import visible

Rule = tuple[str, str]
"""Two globs of event types."""


def parse_rule(text: str) -> Rule:
    """Return the rule of a text such as ``Deposited,Withdrawn``. Raises InvalidQuery."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(parts):
        raise InvalidQuery(
            f"{visible(text, limit=80)!r} is no pair of event types: write two, such as Deposited,Deposited"
        )
    return parts[0], parts[1]


class Commuting:
    """Says whether events of two types may be stored in either order, so that a conflict of them means nothing.

    Each rule is a pair of globs, and holds in both directions. Without a rule nothing is known. Raises InvalidQuery for
    a malformed glob.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        # Globs mean the same in Python's regular expressions.
        self._rules = [
            (re.compile(glob_to_regex(one), re.DOTALL), re.compile(glob_to_regex(other), re.DOTALL))
            for one, other in rules
        ]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def pair(self, one: str, other: str) -> bool:
        """Return whether an event of type `one` and one of type `other` commute."""
        return any(
            (left.search(one) and right.search(other)) or (left.search(other) and right.search(one))
            for left, right in self._rules
        )

    def all(self, lost: Sequence[str], won: Sequence[str]) -> bool:
        """Return whether each of the types that lost commutes with each of those that won."""
        return bool(lost) and bool(won) and all(self.pair(one, other) for one in lost for other in won)

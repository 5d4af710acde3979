"""How long a series of random examples is: short usually, and whole where ESX_ALL_ROUNDS is set, as .ci/full does."""

from __future__ import annotations

import os


def rounds(usually: int, whole: int) -> int:
    """Return how many examples to try."""
    return whole if "ESX_ALL_ROUNDS" in os.environ else usually

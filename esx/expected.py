"""What a writer expects of a stream's version."""

from enum import StrEnum


class Expected(StrEnum):
    """What a writer expects of a stream, if not an exact version (KurrentDB's terms)."""

    ANY = "any"
    NO_STREAM = "none"
    STREAM_EXISTS = "exists"


ANY = Expected.ANY
NO_STREAM = Expected.NO_STREAM
STREAM_EXISTS = Expected.STREAM_EXISTS

ExpectedVersion = Expected | int
"""`ANY`, `NO_STREAM`, `STREAM_EXISTS` or the exact version: the stream's highest stream_seq, from 0."""


def parse_expected(text: str) -> ExpectedVersion:
    """Return the expected version written as ``any``, ``none``, ``exists`` or a number.

    Raises ValueError, whose message names what is allowed.
    """
    for expected in Expected:
        if text == expected.value:
            return expected
    if text.isascii() and text.isdigit():
        return check_expected(int(text))
    raise ValueError(f"{text!r} is not an expected version: use any, none, exists or a number from 0")


def check_expected(expected: ExpectedVersion) -> ExpectedVersion:
    """Return `expected`. Raises ValueError for a negative or too large number, and TypeError for another type."""
    if isinstance(expected, bool) or not isinstance(expected, Expected | int):
        raise TypeError(f"expected must be ANY, NO_STREAM, STREAM_EXISTS or an int, not {expected!r}")
    if isinstance(expected, int) and not 0 <= expected < 2**63 - 1:
        why = (
            "versions start at 0 (for a stream without events use NO_STREAM)"
            if expected < 0
            else f"the highest is {2**63 - 2}"
        )
        raise ValueError(f"{expected} is not a version: {why}")
    return expected

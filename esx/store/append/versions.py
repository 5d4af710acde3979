"""Which versions of a stream an append accepts, and the error for another one."""

from esx.errors import StoreFailed, WrongVersion
from esx.expected import ANY, NO_STREAM, STREAM_EXISTS, ExpectedVersion, check_expected
from esx.store.append.refusals import HIGHEST, full
from esx.text import visible

HIGHEST_BEFORE = HIGHEST - 1
"""The highest version after which an event has room."""


def accepted(expected: ExpectedVersion) -> tuple[int, int]:
    """Return the lowest and the highest version that an append accepts; -1 is that of a stream without events."""
    if expected is ANY:
        return (-1, HIGHEST_BEFORE)
    if expected is NO_STREAM:
        return (-1, -1)
    if expected is STREAM_EXISTS:
        return (0, HIGHEST_BEFORE)
    exact = check_expected(expected)
    assert isinstance(exact, int)
    return (exact, exact)


def refused(
    stream_id: str, expected: ExpectedVersion, version: int, *, below: bool = False
) -> WrongVersion | StoreFailed:
    """Return the error for a stream at another version; `below`: all its numbers are below 0."""
    any_suits = expected is ANY or expected is STREAM_EXISTS
    if below and any_suits:
        return StoreFailed(
            f"stream {visible(stream_id, limit=200)} has only events whose stream_seq is below 0, the highest "
            f"{version}, and esx counts from 0: renumber them, or append to another stream"
        )
    if any_suits and version > HIGHEST_BEFORE:
        return full(stream_id, version, HIGHEST)
    return WrongVersion(stream_id, expected, version, below=below)

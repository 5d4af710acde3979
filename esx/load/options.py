"""Checking what a load test is asked to do."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from esx.load.errors import InvalidOptions

if TYPE_CHECKING:
    from esx.load.model import LoadOptions

MOST_USERS = 10_000
LONGEST = 86_400.0
"""The longest duration in seconds: a day."""
_RUN_ID = re.compile(r"[A-Za-z0-9_.]{1,64}")


def validate(options: LoadOptions) -> LoadOptions:
    """Return `options` if they make sense together; raises InvalidOptions naming the option and the remedy."""
    _range("--users", options.users, 1, MOST_USERS)
    if not (math.isfinite(options.duration) and 0 < options.duration <= LONGEST):
        raise InvalidOptions(f"--duration is {options.duration:g} s: use more than 0 and at most {LONGEST:g} seconds")
    if options.spawn_rate is not None and not (math.isfinite(options.spawn_rate) and options.spawn_rate > 0):
        raise InvalidOptions(f"--spawn-rate is {options.spawn_rate:g}: use a number of users a second above 0")
    check_streams(options.streams, options.hot_streams, options.hot_share)
    return options


def check_streams(streams: int, hot_streams: int, hot_share: float) -> None:
    """Check how many streams there are and how hot; raises InvalidOptions."""
    _range("--streams", streams, 1, 2**31 - 1)
    if hot_streams < 0:
        raise InvalidOptions(f"--hot-streams is {hot_streams}: use 0 for none, or a number up to --streams")
    if hot_streams > streams:
        raise InvalidOptions(f"--hot-streams is {hot_streams}, more than the --streams of {streams}: use fewer")
    if not (math.isfinite(hot_share) and 0 <= hot_share <= 1):
        raise InvalidOptions(f"--hot-share is {hot_share:g}: use a share from 0 to 1, e.g. 0.8 for 80 %")
    if hot_share > 0 and hot_streams == 0:
        raise InvalidOptions(f"--hot-share is {hot_share:g} but no stream is hot: add --hot-streams, e.g. 1")
    if hot_streams > 0 and hot_share == 0:
        raise InvalidOptions(f"--hot-streams is {hot_streams} but they have no share: add --hot-share, e.g. 0.8")


def check_run_id(run: str) -> str:
    """Return a run's id if it can be part of a stream id; raises InvalidOptions."""
    if not _RUN_ID.fullmatch(run):
        raise InvalidOptions(f"--run-id is {run!r}: use up to 64 letters, digits, _ or . (a dash would end it)")
    return run


def _range(option: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise InvalidOptions(f"{option} is {value}: use a number from {lowest} to {highest}")

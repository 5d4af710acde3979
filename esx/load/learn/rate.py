"""The rate of a load test that is like a store that was learned."""

from __future__ import annotations

from dataclasses import replace

from esx.load.learn.profile import read_profile
from esx.load.model import LoadOptions


def as_learned(options: LoadOptions) -> LoadOptions:
    """Return the options with the rate of the traffic that they name, if none is given. Raises BadProfile."""
    if options.like is None:
        return options
    profile = read_profile(options.like)
    if options.rate is not None:
        return options
    return replace(options, rate=profile.arrivals.busiest * options.times)

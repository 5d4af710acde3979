"""Times as HDR histograms in microseconds, exact to three digits."""

from typing import Any

from hdrh.histogram import HdrHistogram

from esx.load.model import PERCENTILES

_HIGHEST_US = 600_000_000  # ten minutes; longer times count as that
_RANKS = dict(zip(PERCENTILES, (50.0, 90.0, 95.0, 99.0, 99.9, 100.0), strict=True))


def histogram() -> Any:
    """Return an empty histogram."""
    return HdrHistogram(1, _HIGHEST_US, 3)


def record(times: Any, microseconds: int, count: int = 1) -> None:
    """Add a time to a histogram, `count` times."""
    times.record_value(min(max(microseconds, 1), _HIGHEST_US), count)


def percentiles(times: Any) -> dict[str, float]:
    """Return the milliseconds of a histogram by PERCENTILES, nothing if it is empty."""
    if not times.get_total_count():
        return {}
    found = times.get_percentile_to_value_dict(list(_RANKS.values()))
    # The upper end of a bucket can be above the highest value that was recorded.
    highest = times.get_max_value()
    return {name: min(found[rank], highest) / 1000 for name, rank in _RANKS.items()}

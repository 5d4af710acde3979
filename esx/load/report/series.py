"""A run's seconds as series to draw, with no more points than a picture can show; conflicts by stream and time."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from esx.load.model import LoadProgress, LoadSummary

Points = list[tuple[float, float]]
MOST_POINTS = 400


def over_time(
    lines: Sequence[LoadProgress],
    value: Callable[[LoadProgress], float | None],
    *,
    worst: bool = False,
    limit: int = MOST_POINTS,
) -> Points:
    """Return `value` of each line by seconds elapsed, at most `limit` points: means, or the highest with `worst`."""
    every = max(-(-len(lines) // limit), 1)
    points: Points = []
    for at in range(0, len(lines), every):
        part = lines[at : at + every]
        values = [found for line in part if (found := value(line)) is not None]
        if values:
            points.append((part[-1].elapsed, max(values) if worst else sum(values) / len(values)))
    return points


def conflicts_a_second(lines: Sequence[LoadProgress]) -> Callable[[LoadProgress], float | None]:
    """Return a function that gives the conflicts a second of one of `lines`, by the difference to the line before.

    The conflict rate does not say how many there are in a second without a success. Only the first line uses it.
    """
    found: dict[float, float] = {}
    for before, line in pairwise(lines):
        found[line.elapsed] = (line.total.conflicts - before.total.conflicts) / max(line.elapsed - before.elapsed, 1e-6)
    return lambda line: found.get(line.elapsed, line.goodput * line.tries_per_success * line.conflict_rate)


def conflicts_by_stream(
    lines: Sequence[LoadProgress], summary: LoadSummary | None, *, streams: int = 24, columns: int = 120, every: int = 0
) -> tuple[list[tuple[str, list[float]]], list[str]]:
    """Return conflicts a second of the hottest streams over time, and a name for each span of time.

    The streams are those with the most conflicts, at most `streams`, the hottest first. A span is `every` lines; 0
    makes at most `columns` of them.
    """
    totals: Counter[int] = Counter()
    if summary is not None and summary.streams:
        totals.update({each.stream: each.conflicts for each in summary.streams})
    else:
        for line in lines:
            totals.update({each.stream: each.conflicts for each in line.streams})
    shown = [stream for stream, conflicts in totals.most_common(streams) if conflicts]
    every = every or max(-(-len(lines) // columns), 1)
    spans = [lines[at : at + every] for at in range(0, len(lines), every)]
    by_span = [_sum(span) for span in spans]
    rows = [
        (f"stream {stream}", [counts[stream] / len(span) for span, counts in zip(spans, by_span, strict=True)])
        for stream in shown
    ]
    return rows, [f"{span[-1].elapsed:.0f} s" for span in spans]


def _sum(lines: Iterable[LoadProgress]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for line in lines:
        for each in line.streams:
            counts[each.stream] += each.conflicts
    return counts


def latency_curve(histogram: str) -> Points:
    """Return an HDR histogram (base64, microseconds) as points: 1 / (1 - percentile) and milliseconds.

    An unreadable histogram has no points.
    """
    from hdrh.histogram import HdrHistogram

    try:
        decoded = HdrHistogram.decode(histogram)
        total = decoded.get_total_count()
        points: Points = []
        seen = 0
        for item in decoded.get_recorded_iterator():
            seen += item.count_added_in_this_iter_step
            # The last value counts half an append as above it: 1 / (1 - 1) would be infinite.
            above = max(total - seen, 0.5)
            points.append((total / above, item.value_iterated_to / 1000))
    except Exception:
        # A file from elsewhere may hold anything: the page is made without it.
        return []
    return _thinned(points)


def _thinned(points: Points, limit: int = MOST_POINTS) -> Points:
    """Leave out points that lie closer together than a picture can show."""
    if len(points) <= limit:
        return points
    low, high = math.log(points[0][0]), math.log(points[-1][0])
    step = (high - low) / limit
    kept = [points[0]]
    for point in points[1:-1]:
        if math.log(point[0]) - math.log(kept[-1][0]) >= step:
            kept.append(point)
    kept.append(points[-1])
    return kept

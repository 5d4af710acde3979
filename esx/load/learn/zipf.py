"""Zipf's law over a bounded number of ranks: fitting its exponent and the number of ranks to samples.

Ranks are put into bins that grow by a hundredth, so that a million of them cost some thousand terms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

STEEPEST = 4.0
_EXACT = 200
_GROWTH = 1.02
_STEPS = 40


@lru_cache(maxsize=256)
def _bins(first: int, last: int) -> tuple[tuple[int, float], ...]:
    """Return bins of the ranks from `first` to `last`: how many ranks each has, and the rank that stands for them."""
    found: list[tuple[int, float]] = []
    rank = first
    while rank <= last:
        end = rank if rank <= _EXACT else min(max(int(rank * _GROWTH), rank), last)
        found.append((end - rank + 1, math.sqrt(rank * end)))
        rank = end + 1
    return tuple(found)


def weight(first: int, last: int, exponent: float) -> float:
    """Return the sum of 1 / rank^exponent over these ranks."""
    return float(sum(count * rank**-exponent for count, rank in _bins(first, last)))


def fit_counts(
    draws: int, distinct: int, repeats: float, *, first: int = 1, most: int = 10_000_000
) -> tuple[float, int]:
    """Return the exponent and the highest rank of a law from whose ranks, `first` and above, `draws` were drawn.

    `distinct` ranks were hit; `repeats` is the chance that two draws hit the same.
    """
    if distinct >= draws or repeats <= 0 or draws < 2:
        return 0.0, min(max(distinct, 1) + first - 1, most)
    low, high = 0.0, STEEPEST
    for _ in range(_STEPS):
        exponent = (low + high) / 2
        last = _last_rank(draws, distinct, exponent, first, most)
        if _repeats(exponent, first, last) < repeats:
            low = exponent
        else:
            high = exponent
    exponent = (low + high) / 2
    last = _last_rank(draws, distinct, exponent, first, most)
    return exponent, _hit_once(draws, exponent, first, last)


def _hit_once(draws: int, exponent: float, first: int, last: int) -> int:
    """Return the rank beyond which not even one of the draws is due: of farther ones nothing is known."""
    total = weight(first, last, exponent)
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if draws * (total - weight(first, middle, exponent)) > total:
            low = middle + 1
        else:
            high = middle
    return low


def _repeats(exponent: float, first: int, last: int) -> float:
    """Return the chance that two draws hit the same rank."""
    total = weight(first, last, exponent)
    return float(sum(count * (rank**-exponent / total) ** 2 for count, rank in _bins(first, last)))


def _last_rank(draws: int, distinct: int, exponent: float, first: int, most: int) -> int:
    """Return the highest rank with which so many draws hit so many ranks."""
    low = first + distinct - 1
    high = first + most - 1
    while low < high:
        middle = (low + high) // 2
        if _hit(draws, exponent, first, middle) < distinct - 0.5:
            low = middle + 1
        else:
            high = middle
    return low


def _hit(draws: int, exponent: float, first: int, last: int) -> float:
    """Return how many ranks so many draws hit."""
    total = weight(first, last, exponent)
    return sum(-count * math.expm1(-draws * rank**-exponent / total) for count, rank in _bins(first, last))


def fit_ranks(ranks: Sequence[int], *, first: int = 1) -> tuple[float, int]:
    """Return the exponent and the highest rank of the law from which these ranks, `first` and above, were drawn."""
    ordered = sorted(ranks)
    if not ordered:
        return 0.0, first
    # Beyond the last half percent single ranks would decide.
    kept = max(int(len(ordered) * 0.995), 1)
    end = ordered[kept - 1]
    if end <= first:
        return STEEPEST, ordered[-1]
    mean_log = sum(map(math.log, ordered[:kept])) / kept
    low, high = 0.0, STEEPEST
    for _ in range(_STEPS):
        exponent = (low + high) / 2
        weights = [(count * rank**-exponent, rank) for count, rank in _bins(first, end)]
        expected = sum(part * math.log(rank) for part, rank in weights) / sum(part for part, _ in weights)
        if expected > mean_log:
            low = exponent
        else:
            high = exponent
    exponent = (low + high) / 2
    # Up to `end` is the share that was kept: where is all of it?
    share = kept / len(ordered)
    inside = weight(first, end, exponent)
    nearest, farthest = end, ordered[-1] * 2
    while nearest < farthest:
        middle = (nearest + farthest) // 2
        if inside / weight(first, middle, exponent) > share:
            nearest = middle + 1
        else:
            farthest = middle
    return exponent, nearest

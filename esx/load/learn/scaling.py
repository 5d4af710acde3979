"""What load tests at several multiples of learned traffic say: at which one conflicts or latency pass a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from esx.load.model import LoadSummary
from esx.load.report.text import milliseconds, too_slow
from esx.load.sweep.sweep import Result

_ENOUGH = 100


@dataclass(frozen=True, slots=True)
class LoadBounds:
    """What is still good: the share of attempts that are conflicts, and milliseconds until 99 of 100 commands end."""

    conflicts: float = 0.05
    p99: float = 100.0


@dataclass(frozen=True, slots=True)
class Multiple:
    """The figures of a run at a multiple of the traffic; `p99` is in milliseconds, from when a command was due.

    `appends` is how many succeeded. `behind` says that the rate was not reached, `saturated` that the generator
    measured itself as well.
    """

    times: float
    goodput: float
    conflict_rate: float
    p99: float
    behind: bool
    saturated: bool
    appends: int


def multiples_of(results: Iterable[Result]) -> list[Multiple]:
    """Return the runs of a sweep over `times`, by multiple."""
    found = [
        Multiple(
            float(each.point["times"]),
            each.goodput,
            each.conflict_rate,
            each.p99 if each.response_p99 is None else each.response_p99,
            each.behind,
            each.saturated,
            each.successes,
        )
        for each in results
    ]
    return sorted(found, key=lambda each: each.times)


def multiple_of(summary: LoadSummary, times: float) -> Multiple:
    """Return the figures of one run."""
    p99 = summary.response.get("p99", summary.percentiles.get("p99", 0.0))
    behind = too_slow(summary) is not None
    return Multiple(
        times, summary.goodput, summary.conflict_rate, p99, behind, summary.saturated, summary.total.successes
    )


def passed(multiples: Sequence[Multiple], bounds: LoadBounds) -> dict[str, float | None]:
    """Return the lowest multiple at which each bound is passed, None where it is kept; the rate is a bound too."""
    tests: dict[str, Callable[[Multiple], bool]] = {
        "conflicts": lambda each: each.conflict_rate > bounds.conflicts,
        "latency": lambda each: each.p99 > bounds.p99,
        "rate": lambda each: each.behind,
    }
    return {name: next((each.times for each in multiples if test(each)), None) for name, test in tests.items()}


def scaling_lines(multiples: Sequence[Multiple], bounds: LoadBounds) -> Iterator[str]:
    """Yield a table of the multiples, and in words where a bound is passed."""
    yield f"{'times':>8}  {'appends/s':>10}  {'conflicts':>9}  {'p99 ms':>9}"
    for each in multiples:
        marks = [
            *(["conflicts"] if each.conflict_rate > bounds.conflicts else ()),
            *(["latency"] if each.p99 > bounds.p99 else ()),
            *(["rate not reached"] if each.behind else ()),
            *(["generator saturated"] if each.saturated else ()),
        ]
        row = f"{each.times:>8g}  {each.goodput:>10,.1f}  {each.conflict_rate:>9.1%}  {milliseconds(each.p99):>9}"
        yield f"{row}  {', '.join(marks)}".rstrip()
    if few := [each for each in multiples if each.appends < _ENOUGH]:
        which = ", ".join(f"{each.times:g}" for each in few)
        yield f"at {which} times fewer than {_ENOUGH} appends were made, which says little: a longer --duration helps"
    found = passed(multiples, bounds)
    for name, kept, passes, bound in (
        ("conflicts", "conflicts stay within", "conflicts pass", f"{bounds.conflicts:.1%} of attempts"),
        ("latency", "latency stays within", "latency passes", f"{milliseconds(bounds.p99)} ms for 99 of 100 commands"),
    ):
        at = found[name]
        if at is None:
            yield f"{kept} {bound} up to {multiples[-1].times:g} times the traffic"
        else:
            yield f"{passes} {bound} at {at:g} times the traffic"
    if (at := found["rate"]) is not None:
        yield f"from {at:g} times on not all appends that were due could be made: more --users help, if not the store"

"""Axes: the place of a value on one, and the values to write on it."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


def number(value: float) -> str:
    """Return a number as short text: ``12,400``, ``3.5``, ``0.02``, ``1.2M``."""
    size = abs(value)
    if size >= 1e9:
        return f"{value / 1e9:.3g}G"
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """Return a share (0 to 1) as a percentage."""
    return f"{value:.0%}" if abs(value * 100 - round(value * 100)) < 1e-6 or value >= 0.1 else f"{value:.1%}"


@dataclass(frozen=True)
class Axis:
    """An axis: its label, whether it is logarithmic, and how it writes its values.

    `low` and `high` widen it beyond the data; `ticks` are used instead of round values. A `tight` axis ends where the
    data end, not at the next round value.
    """

    label: str = ""
    log: bool = False
    text: Callable[[float], str] = number
    low: float | None = None
    high: float | None = None
    ticks: Sequence[tuple[float, str]] | None = None
    tight: bool = False


@dataclass(frozen=True)
class AxisScale:
    """An axis with its range fixed: `place` maps values to 0 ... 1."""

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Return the place of `value`, from 0 at the low end to 1 at the high end; values outside are at the edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def scale(axis: Axis, values: Iterable[float], *, about: int = 5) -> AxisScale:
    """Return the scale of an axis that shows `values`, with `about` as many ticks."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not axis.log)]
    finite += [bound for bound in (axis.low, axis.high) if bound is not None]
    low, high = (min(finite), max(finite)) if finite else (1.0, 10.0) if axis.log else (0.0, 1.0)
    if axis.log:
        if axis.ticks is None:
            low, high = 10 ** math.floor(math.log10(low) + 1e-9), 10 ** math.ceil(math.log10(high) - 1e-9)
        if high <= low:
            high = low * 10
        ticks = axis.ticks or [(value, axis.text(value)) for value in _log_ticks(low, high)]
    else:
        if axis.ticks is None:
            if high <= low:
                high = low + (abs(low) or 1.0)
            step = nice_step(high - low, about)
            low = axis.low if axis.low is not None else math.floor(low / step + 1e-9) * step
            end = max(axis.high or -math.inf, math.ceil(high / step - 1e-9) * step)
            count = round((end - low) / step)
            high = high if axis.tight else end
            ticks = [(low + at * step, axis.text(low + at * step)) for at in range(count + 1)]
        else:
            ticks = axis.ticks
        if high <= low:
            high = low + 1
    return AxisScale(
        low, high, axis.log, tuple((value, text) for value, text in ticks if low <= value <= high * 1.0001)
    )


def nice_step(span: float, about: int) -> float:
    """Return 1, 2 or 5 times a power of ten, so that `span` has `about` as many steps."""
    rough = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = round(math.log10(low)), round(math.log10(high))
    decades = [10.0**power for power in range(first, last + 1)]
    if len(decades) <= 3:
        return [factor * decade for decade in decades for factor in (1, 2, 5) if factor * decade <= high]
    return decades

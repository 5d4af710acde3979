"""A run under way as a few lines of at most 79 columns, to be written over each second."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from esx.load.report import milliseconds
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esx.load.model import LoadOptions, LoadProgress

_WIDTH = 79
_BAR = 34
_SPARK = 34
_BLOCKS = "▁▂▃▄▅▆▇█"


class LiveText:
    """Turns each line of progress into lines to show in place of those before."""

    def __init__(self, options: LoadOptions) -> None:
        self._span = options.warm_up + options.duration
        self._goodput: deque[float] = deque(maxlen=_SPARK)
        self._conflicts: deque[float] = deque(maxlen=_SPARK)

    def lines(self, line: LoadProgress) -> list[str]:
        """Return what to show for the last second."""
        self._goodput.append(line.goodput)
        self._conflicts.append(line.conflict_rate)
        done = min(line.elapsed / self._span, 1.0) if self._span else 1.0
        filled = round(done * _BAR)
        phase = "warming up" if line.warming_up else f"{line.users:,} users"
        shown = [
            f"{'time':<10}{line.elapsed:>8.0f} s  {'█' * filled}{'░' * (_BAR - filled)}  of {self._span:g} s, {phase}",
            f"{'goodput':<10}{line.goodput:>8,.0f} /s {spark(self._goodput)}  appends a second",
            f"{'conflicts':<10}{line.conflict_rate:>8.1%}    {spark(self._conflicts, top=1.0)}  of attempts",
            f"{'append':<10}{milliseconds(line.p50_ms):>8} ms  p50   {milliseconds(line.p95_ms):>7} p95   "
            f"{milliseconds(line.p99_ms):>7} p99   generator CPU {line.generator_cpu:.0%}",
        ]
        if line.response_p50_ms is not None and line.response_p99_ms is not None:
            shown.append(
                f"{'response':<10}{milliseconds(line.response_p50_ms):>8} ms  p50   "
                f"{milliseconds(line.response_p95_ms or 0.0):>7} p95   {milliseconds(line.response_p99_ms):>7} p99"
            )
        failures = line.total.errors + line.total.unknown
        if failures:
            shown.append(f"{'failures':<10}{failures:>8,}     {visible(line.last_error or '', limit=50)}")
        return [each[:_WIDTH] for each in shown]


def spark(values: Iterable[float], *, top: float | None = None) -> str:
    """Return values as a line of blocks, the newest at the right; `top` is the full height, else the highest is."""
    shown = list(values)
    highest = (max(shown, default=0.0) if top is None else top) or 1.0
    blocks = (_BLOCKS[min(round(value / highest * (len(_BLOCKS) - 1)), len(_BLOCKS) - 1)] for value in shown)
    return "".join(blocks).rjust(_SPARK)

"""The progress of a run as a few lines of at most 79 columns, which replace each other every second."""

from collections import deque

from esx.load.model import LoadOptions, LoadProgress
from esx.load.report.text import milliseconds
from esx.text import sparkline, visible

_WIDTH = 79
_BAR = 34
_SPARK = 34


class LiveText:
    """Turns each line of progress into the lines to show."""

    def __init__(self, options: LoadOptions) -> None:
        self._span = options.warm_up + options.duration
        self._goodput: deque[float] = deque(maxlen=_SPARK)
        self._conflicts: deque[float] = deque(maxlen=_SPARK)

    def lines(self, line: LoadProgress) -> list[str]:
        """Return the lines for the last second."""
        self._goodput.append(line.goodput)
        self._conflicts.append(line.conflict_rate)
        done = min(line.elapsed / self._span, 1.0) if self._span else 1.0
        filled = round(done * _BAR)
        appends, conflicts = sparkline(self._goodput, _SPARK), sparkline(self._conflicts, _SPARK, top=1.0)
        phase = "warming up" if line.warming_up else f"{line.users:,} users"
        shown = [
            f"{'time':<10}{line.elapsed:>8.0f} s  {'█' * filled}{'░' * (_BAR - filled)}  of {self._span:g} s, {phase}",
            f"{'goodput':<10}{line.goodput:>8,.0f} /s {appends}  appends a second",
            f"{'conflicts':<10}{line.conflict_rate:>8.1%}    {conflicts}  of attempts",
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

"""Telling a load test's figures as text: plain lines that fit a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.text import visible

if TYPE_CHECKING:
    from esx.load.model import LoadProgress, LoadSummary

_NAME = 14
_COUNT = 13


def render_progress(line: LoadProgress) -> str:
    """Return one line: time, users, appends a second, conflicts, latencies of the last second, and failures."""
    total = line.total
    parts = [
        f"{line.elapsed:6.1f} s",
        f"{line.users:3d} users",
        f"{line.goodput:7,.0f} appends/s",
        f"{line.conflict_rate:5.1%} conflicts",
        f"p50 {milliseconds(line.p50_ms)}",
        f"p99 {milliseconds(line.p99_ms)} ms",
    ]
    if total.errors:
        parts.append(f"{total.errors:,} errors")
    if total.unknown:
        parts.append(f"{total.unknown:,} unknown")
    return "  ".join(parts)


def render_summary(summary: LoadSummary) -> str:
    """Return the summary as lines of text, the verdict and its evidence last."""
    total = summary.total
    title = f"run {summary.run}: {summary.users} users, {summary.elapsed:.1f} s"
    if summary.interrupted:
        title += ", interrupted"
    lines = [title, ""]
    lines.append(_row("appends/s", f"{summary.goodput:,.1f}", "successful appends a second"))
    lines.append(_row("attempts", f"{total.attempts:,}"))
    for name, count in (
        ("successes", total.successes),
        ("conflicts", total.conflicts),
        ("errors", total.errors),
        ("unknown", total.unknown),
    ):
        lines.append(_row(name, f"{count:,}", f"{count / (total.attempts or 1):.1%}"))
    if summary.last_error:
        lines.append(f"{'last error':<{_NAME}}  {visible(summary.last_error, limit=200)}")
    lines.append("")
    names = list(summary.percentiles)
    lines.append(f"{'latency':<{_NAME}}" + "".join(f"{name:>10}" for name in names))
    lines.append(f"{'ms':<{_NAME}}" + "".join(f"{milliseconds(summary.percentiles[name]):>10}" for name in names))
    lines.append("")
    stored = "not known" if summary.stored is None else f"{summary.stored:,}"
    lines.append(_row("rows stored", stored))
    lines.append(_row("verdict", "none" if summary.verdict is None else summary.verdict.upper()))
    lines.extend(f"  - {evidence}" for evidence in summary.evidence)
    return "\n".join(lines)


def _row(name: str, value: str, note: str = "") -> str:
    return f"{name:<{_NAME}}{value:>{_COUNT}}  {note}".rstrip()


def milliseconds(milliseconds: float) -> str:
    """Return so many digits that microseconds show where they matter."""
    if milliseconds < 10:
        return f"{milliseconds:.3f}"
    return f"{milliseconds:.2f}" if milliseconds < 100 else f"{milliseconds:,.1f}"

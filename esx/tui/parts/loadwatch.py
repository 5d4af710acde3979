"""Watching a load test, or looking at one again: plots, conflicts by stream and time, figures and verdict."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, ClassVar

from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from esx.load.report import latencies, milliseconds, too_slow
from esx.load.series import conflicts_a_second, conflicts_by_stream, over_time
from esx.text import visible
from esx.tui.cells import MUTED
from esx.tui.stage import is_hidden
from esx.tui.widgets.heatmap import HeatMap
from esx.tui.widgets.lineplot import Line, LinePlot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from esx.load.model import LoadOptions, LoadProgress, LoadSummary

_BAR = 12
_RECENT = 3600
"""How many seconds of a long run are drawn while it runs."""


class LoadWatch(Vertical):
    """What one run told until now."""

    DEFAULT_CSS: ClassVar[str] = """
    LoadWatch {
        height: 1fr;
        #load-now { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
        #load-plots { height: 1fr; min-height: 6; }
        .load-box {
            border: round $foreground 25%; border-title-color: $text-muted; border-subtitle-color: $text-muted;
            background: $surface; padding: 0 1;
        }
        .load-plot { width: 1fr; height: 1fr; }
        #load-heat-box { height: 9; }
        #load-said {
            height: auto; max-height: 15; scrollbar-size-vertical: 1;
            scrollbar-background: $surface; scrollbar-background-hover: $surface; scrollbar-color: $foreground 25%;
        }
    }
    LoadWatch.-low #load-heat-box { height: 5; }
    LoadWatch.-low #load-said { max-height: 8; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._options: LoadOptions | None = None
        self._series: list[LoadProgress] = []
        self._summary: LoadSummary | None = None
        self._problem = ""

    def compose(self) -> ComposeResult:
        """Lay out the line of the last second, the plots, the heat map and the figures."""
        yield Static(id="load-now")
        with Horizontal(id="load-plots"):
            with Container(classes="load-box load-plot", id="load-goodput-box") as box:
                box.border_title = Content.assemble(
                    ("appends", "$primary"), " and ", ("conflicts", "$error"), " a second"
                )
                yield LinePlot(id="load-goodput")
            with Container(classes="load-box load-plot", id="load-times-box") as box:
                box.border_title = Content.assemble(
                    "append, ms: ", ("p50", "$success"), " ", ("p95", "$warning"), " ", ("p99", "$error")
                )
                yield LinePlot(id="load-times")
        with Container(classes="load-box", id="load-heat-box") as box:
            box.border_title = "conflicts by stream and time"
            yield HeatMap(id="load-heat-map")
        with VerticalScroll(classes="load-box", id="load-said"):
            yield Static(id="load-figures")

    def on_resize(self) -> None:
        """Give the plots the room that there is."""
        self.set_class(self.size.height < 28, "-low")
        self.call_after_refresh(self._draw)

    def begin(self, options: LoadOptions) -> None:
        """Show a run that has told nothing yet."""
        self.show(options, (), None)

    def show(self, options: LoadOptions, series: Sequence[LoadProgress], summary: LoadSummary | None) -> None:
        """Show a run."""
        self._options, self._series, self._summary, self._problem = options, list(series), summary, ""
        self._draw()

    def add(self, line: LoadProgress) -> None:
        """Show one second more."""
        self._series.append(line)
        self._draw()

    def finish(self, summary: LoadSummary) -> None:
        """Show how it ended."""
        self._summary = summary
        self._draw()

    def say(self, problem: str) -> None:
        """Show a line about what went wrong, above the figures."""
        self._problem = problem
        self._draw()

    # -- drawing --------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        # What comes while it is not seen is drawn when it is: being shown again is a resize.
        if self._options is None or not self.is_attached or is_hidden(self):
            return
        self._draw_now(self._options)
        series = self._series if self._summary else self._series[-_RECENT:]
        planned = self._options.duration + self._options.warm_up
        seconds = series[-1].elapsed if self._summary and series else max(planned, series[-1].elapsed if series else 0)
        plot = self.query_one("#load-goodput", LinePlot)
        room = max(plot.size.width * 2, 20)
        plot.show(
            [
                Line("conflicts", over_time(series, conflicts_a_second(series), limit=room), "error"),
                Line("appends", over_time(series, lambda line: line.goodput, limit=room), "primary"),
            ],
            seconds,
        )
        self.query_one("#load-times", LinePlot).show(
            [
                Line("p99", over_time(series, lambda line: line.p99_ms, limit=room), "error"),
                Line("p95", over_time(series, lambda line: line.p95_ms, limit=room), "warning"),
                Line("p50", over_time(series, lambda line: line.p50_ms, limit=room), "success"),
            ],
            seconds,
        )
        self._draw_heat(series, seconds)
        self._draw_figures()

    def _draw_heat(self, series: Sequence[LoadProgress], seconds: float) -> None:
        heat = self.query_one(HeatMap)
        every = max(-(-int(seconds) // heat.room), 1)
        rows, _ = conflicts_by_stream(series, self._summary, streams=max(heat.size.height, 1), every=every)
        heat.show(rows, max(-(-int(seconds) // every), -(-len(series) // every)))
        box = self.query_one("#load-heat-box")
        box.border_subtitle = f"up to {heat.highest:,.0f} a second" if heat.highest else ""

    def _draw_now(self, options: LoadOptions) -> None:
        line = self._series[-1] if self._series else None
        if line is None:
            self.query_one("#load-now", Static).update(
                Content.styled("it did not run" if self._problem else "starting …", MUTED)
            )
            return
        span = options.duration + options.warm_up
        summary = self._summary
        elapsed = line.elapsed if summary is None else summary.elapsed + options.warm_up
        whole = summary is not None and not summary.interrupted
        filled = round(min(elapsed / span, 1.0) * _BAR) if span and not whole else _BAR
        if summary is not None:
            told = Content.styled("stopped" if summary.interrupted else "done", MUTED)
        else:
            told = Content.assemble(
                f"{'warming up' if line.warming_up else f'{line.users:,} users'}  ",
                (f"{line.goodput:,.0f}/s", "bold"),
                f"  {line.conflict_rate:.1%} conflicts  generator {line.generator_cpu:.0%}",
            )
        self.query_one("#load-now", Static).update(
            Content.assemble(
                f"{elapsed:,.0f} of {span:g} s ",
                ("━" * filled, "$primary"),
                ("━" * (_BAR - filled), "$foreground 20%"),
                "  ",
                told,
            )
        )

    def _draw_figures(self) -> None:
        lines = [Content.styled(self._problem, "$text-error")] if self._problem else []
        if self._summary is not None:
            lines += self._verdict(self._summary)
        elif self._series:
            lines += self._figures(self._series[-1])
        self.query_one("#load-figures", Static).update(Content("\n").join(lines))
        self.query_one("#load-said").display = bool(lines)

    @staticmethod
    def _figures(line: LoadProgress) -> list[Content]:
        total = line.total
        failures = (f"  {total.errors:,} errors  {total.unknown:,} unknown", "$text-error")
        lines = [
            Content.assemble(
                f"{total.attempts:,} attempts = {total.successes:,} stored + {total.conflicts:,} conflicts",
                failures if total.errors or total.unknown else "",
            )
        ]
        told = []
        if line.tries_per_success:
            told.append(f"{line.tries_per_success:.2f} tries per success")
        if line.response_p99_ms is not None:
            told.append(f"response p99 {milliseconds(line.response_p99_ms)} ms")
        if line.database is not None:
            told.append(f"WAL {line.database.wal_bytes / 1e6:,.1f} MB/s")
            waits = sorted(line.database.waits.items(), key=lambda wait: -wait[1])[:1]
            told += [f"waiting: {visible(kind, limit=24)} {count:.1f}" for kind, count in waits]
        if told:
            lines.append(Content.styled("  ".join(told), MUTED))
        if line.last_error:
            lines.append(Content.styled(visible(line.last_error, limit=300), "$text-error"))
        return lines

    def _verdict(self, summary: LoadSummary) -> list[Content]:
        total = summary.total
        good = summary.verdict == "pass"
        colour = "bold $text-success" if good else "bold $text-error"
        room = max(self.size.width - 6, 20)
        lines = [
            Content.assemble(
                (f"{visible(summary.verdict or 'no verdict', limit=20).upper()}", colour),
                f"  {summary.elapsed:,.1f} s, {summary.users:,} users: ",
                (f"{summary.goodput:,.0f} appends/s", "bold"),
                f", {summary.conflict_rate:.1%} conflicts",
                f", {summary.tries_per_success:.2f} tries" if summary.tries_per_success else "",
            )
        ]
        for why in summary.evidence:
            lines += [
                Content.styled(piece, MUTED)
                for piece in textwrap.wrap(visible(why, limit=500), room, initial_indent="- ", subsequent_indent="  ")
            ]
        counts = f"{total.attempts:,} attempts = {total.successes:,} stored + {total.conflicts:,} conflicts"
        if total.errors or total.unknown:
            counts += f" + {total.errors:,} errors + {total.unknown:,} unknown"
        lines.append(Content(counts))
        if summary.last_error:
            lines.append(Content.styled(visible(summary.last_error, limit=room), "$text-error"))
        if summary.saturated:
            lines.append(Content.styled("the generator was saturated: it measured itself as well", "$text-warning"))
        if (behind := too_slow(summary)) is not None:
            lines.append(Content.styled(f"the rate was {behind}", "$text-warning"))
        lines += [Content.styled(line, MUTED if at == 0 else "") for at, line in enumerate(latencies(summary))]
        lines.append(Content.styled(f"esx load report {visible(summary.run, limit=40)}  makes a page of it", MUTED))
        return lines

"""A load test, running or saved: plots, conflicts by stream and time, figures and verdict."""

import textwrap
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from esx.load.collisions import collision_rows
from esx.load.model import LoadOptions, LoadProgress, LoadSummary
from esx.load.report.describe import verdict_text
from esx.load.report.series import conflicts_a_second, conflicts_by_stream, over_time
from esx.load.report.text import latencies, milliseconds, too_slow
from esx.text import counted, visible
from esx.tui.cells import MUTED
from esx.tui.panes import is_hidden
from esx.tui.widgets.frame import Frame
from esx.tui.widgets.heatmap import HeatMap
from esx.tui.widgets.lineplot import LinePlot, PlotLine

_BAR = 12
_PAIRS = 3


class LoadWatch(Vertical):
    """Shows one run."""

    DEFAULT_CSS: ClassVar[str] = """
    LoadWatch {
        height: 1fr;
        #load-now { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
        #load-plots { height: 1fr; min-height: 6; }
        #load-heat-box { height: 9; }
        #load-said {
            height: auto; max-height: 15; scrollbar-size-vertical: 1;
            border: round $foreground 25%; background: $surface; padding: 0 1;
            scrollbar-background: $surface; scrollbar-background-hover: $surface; scrollbar-color: $foreground 25%;
        }
    }
    LoadWatch.-low #load-heat-box { height: 5; }
    LoadWatch.-low #load-said { max-height: 8; }
    """

    def __init__(self, typed: Callable[[str], str], *, id: str) -> None:
        """Make it; `typed` returns a command of esx as it reaches this database from a shell."""
        super().__init__(id=id)
        self._typed = typed
        self._now = Static(id="load-now")
        self._rates, self._times = LinePlot(id="load-goodput"), LinePlot(id="load-times")
        self._heat = HeatMap(self._draw, id="load-heat-map")
        self._heat_frame = Frame("conflicts by stream and time", id="load-heat-box")
        self._figures = Static(id="load-figures")
        self._options: LoadOptions | None = None
        self._series: list[LoadProgress] = []
        self._summary: LoadSummary | None = None
        self._problem = ""

    def compose(self) -> ComposeResult:
        """Lay out the line of the last second, the plots, the heat map and the figures."""
        yield self._now
        with Horizontal(id="load-plots"):
            title = Content.assemble(("appends", "$text-primary"), " and ", ("conflicts", "$text-error"), " a second")
            with Frame(title, id="load-goodput-box"):
                yield self._rates
            title = Content.assemble(
                "append, ms: ", ("p50", "$text-success"), " ", ("p95", "$text-warning"), " ", ("p99", "$text-error")
            )
            with Frame(title, id="load-times-box"):
                yield self._times
        with self._heat_frame:
            yield self._heat
        with VerticalScroll(id="load-said"):
            yield self._figures

    def on_resize(self) -> None:
        """Give the plots more room on a low screen."""
        self.set_class(self.size.height < 28, "-low")
        self.seen()

    def seen(self) -> None:
        """Draw what came while it was hidden: there may be no resize when it is shown again."""
        self.call_after_refresh(self._draw)

    def begin(self, options: LoadOptions) -> None:
        """Show a run that has just begun."""
        self.show(options, (), None)

    def show(self, options: LoadOptions, series: Sequence[LoadProgress], summary: LoadSummary | None) -> None:
        """Show a run."""
        self._options, self._series, self._summary, self._problem = options, list(series), summary, ""
        self._draw()

    def add(self, line: LoadProgress) -> None:
        """Show one more second."""
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

    def _draw(self) -> None:
        # While hidden, nothing is drawn; `seen` does it later.
        if self._options is None or not self.is_attached or is_hidden(self):
            return
        self._draw_now(self._options)
        # Of a long run, the last hour is drawn while it runs.
        series = self._series if self._summary else self._series[-3600:]
        planned = self._options.duration + self._options.warm_up
        seconds = series[-1].elapsed if self._summary and series else max(planned, series[-1].elapsed if series else 0)
        room = max(self._rates.size.width * 2, 20)
        self._rates.show(
            [
                PlotLine("conflicts", over_time(series, conflicts_a_second(series), limit=room), "text-error"),
                PlotLine("appends", over_time(series, lambda line: line.goodput, limit=room), "text-primary"),
            ],
            seconds,
        )
        self._times.show(
            [
                PlotLine("p99", over_time(series, lambda line: line.p99_ms, limit=room), "text-error"),
                PlotLine("p95", over_time(series, lambda line: line.p95_ms, limit=room), "text-warning"),
                PlotLine("p50", over_time(series, lambda line: line.p50_ms, limit=room), "text-success"),
            ],
            seconds,
        )
        self._draw_heat(series, seconds)
        self._draw_figures()

    def _draw_heat(self, series: Sequence[LoadProgress], seconds: float) -> None:
        heat = self._heat
        every = max(-(-int(seconds) // heat.room), 1)
        rows, _ = conflicts_by_stream(series, self._summary, streams=max(heat.size.height, 1), every=every)
        heat.show(rows, max(-(-int(seconds) // every), -(-len(series) // every)))
        self._heat_frame.border_subtitle = f"up to {heat.highest:,.0f} a second" if heat.highest else ""

    def _draw_now(self, options: LoadOptions) -> None:
        line = self._series[-1] if self._series else None
        if line is None:
            self._now.update(Content.styled("it did not run" if self._problem else "starting …", MUTED))
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
        self._now.update(
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
            lines += self._progress(self._series[-1])
        self._figures.update(Content("\n").join(lines))
        self.query_one("#load-said").display = bool(lines)

    @staticmethod
    def _progress(line: LoadProgress) -> list[Content]:
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
        verdict, judged = verdict_text(summary)
        lines = [
            Content.assemble(
                (verdict, colour),
                f"  {judged}; ",
                (f"{summary.goodput:,.0f} appends/s", "bold"),
                f", {counted(summary.users, 'user')}, {summary.elapsed:,.1f} s",
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
        if summary.tries_per_success:
            counts += f", {summary.tries_per_success:.2f} tries per success"
        lines.append(Content(counts))
        if summary.recording is not None:
            lines.append(Content.styled(visible(summary.recording, limit=room), MUTED))
        for lost, won, conflicts, share, *_ in collision_rows(summary.pairs, _PAIRS):
            pair = f"{visible(lost, limit=60)} lost to {visible(won, limit=60)}"
            lines.append(Content(f"  {conflicts:>9} {share:>4}  {pair}"))
        if summary.last_error:
            lines.append(Content.styled(visible(summary.last_error, limit=room), "$text-error"))
        if summary.saturated:
            lines.append(Content.styled("the generator was saturated: it measured itself as well", "$text-warning"))
        if (behind := too_slow(summary)) is not None:
            lines.append(Content.styled(f"the rate was {behind}", "$text-warning"))
        lines += [Content.styled(line, MUTED if at == 0 else "") for at, line in enumerate(latencies(summary))]
        lines.append(Content.styled(f"esx load report {visible(summary.run, limit=40)}  makes a page of it", MUTED))
        clean = self._typed(f"load clean {visible(summary.run, limit=40)}")
        lines.append(Content.styled(f"D, or {visible(clean, limit=500)}, takes its events out again", MUTED))
        return lines

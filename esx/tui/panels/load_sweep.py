"""A sweep, running or ended: a line for each of its steps as they come, and what they say together."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import Static

from esx.load.model import LoadProgress
from esx.load.report.describe import knob, value_text
from esx.load.report.text import milliseconds
from esx.load.sweep.knee import in_words, spots
from esx.load.sweep.sweep import Result, Sweep, Turn, Value, point_text
from esx.text import counted, visible
from esx.tui.cells import MUTED, wrap_words
from esx.tui.keymap import Keyed
from esx.tui.panels.scrolled import SCROLL_KEYS, ScrolledText
from esx.tui.panes import is_hidden

_FIGURES = 38
"""Cells of a line besides its knobs and its bars."""
_LONGEST_BAR = 60
_PARTS = " ▏▎▍▌▋▊▉█"


class LoadSweep(Keyed, ScrolledText):
    """Shows one sweep."""

    BINDINGS: ClassVar[list[BindingType]] = [*SCROLL_KEYS]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._sweep: Sweep | None = None
        self._turn: Turn | None = None
        self._now: LoadProgress | None = None
        self._ended = ""
        self._problem = ""

    def compose(self) -> ComposeResult:
        """Lay out the text."""
        yield Static()

    def on_resize(self) -> None:
        """Draw for the new width."""
        self.seen()

    def seen(self) -> None:
        """Draw what came while it was hidden."""
        self.call_after_refresh(self._draw)

    def begin(self, sweep: Sweep) -> None:
        """Show a sweep that has just begun."""
        self._sweep, self._turn, self._now, self._ended, self._problem = sweep, None, None, "", ""
        self.border_title = Content(f"sweep of {', '.join(knob(name) for name, _ in sweep.plan.vary)}")
        self.scroll_home(animate=False)
        self._draw()

    def take(self, said: Turn | LoadProgress | Result) -> None:
        """Show what a sweep said."""
        if isinstance(said, Turn):
            self._turn, self._now = said, None
        elif isinstance(said, LoadProgress):
            self._now = said
        else:
            self._turn = None
        self._draw()

    def finish(self, ended: str, problem: str) -> None:
        """Show how it ended: in a word, and what went wrong, if anything did."""
        self._turn, self._ended, self._problem = None, ended, problem
        self._draw()

    def _draw(self) -> None:
        if self._sweep is None or not self.is_attached or is_hidden(self):
            return
        width = max(self.content_size.width, 40)
        lines = [self._head(self._sweep), Content(), *self._table(self._sweep, width), Content()]
        if self._problem:
            lines += [Content.styled(each, "$text-error") for each in wrap_words(self._problem, width)]
        findings = in_words(self._sweep) if self._sweep.results else []
        for at, finding in enumerate(findings):
            style = "bold" if at == 0 else ""
            lines += [Content.styled(each, style) for each in wrap_words(visible(finding, limit=1000), width)]
        self.query_one(Static).update(Content("\n").join(lines))

    def _head(self, sweep: Sweep) -> Content:
        runs = len(sweep.plan.runs())
        turn = self._turn
        if turn is None:
            told = self._ended or "starting …"
            return Content.assemble((f"{len(sweep.results)} of {counted(runs, 'run')}", "bold"), (f"  {told}", MUTED))
        left = max(turn.left - (self._now.elapsed if self._now is not None else 0.0), 0.0)
        minutes, seconds = divmod(round(left), 60)
        return Content.assemble(
            (f"run {turn.number} of {turn.runs}", "bold"),
            f"  about {minutes}:{seconds:02d} left  ",
            (visible(point_text(turn.point), limit=200), MUTED),
        )

    def _table(self, sweep: Sweep, width: int) -> Iterator[Content]:
        """Yield the titles and a line for each combination: with figures, under way, or to come."""
        names = [name for name, _ in sweep.plan.vary]
        widths = [max(len(knob(name)), *(len(value_text(each)) for each in values)) for name, values in sweep.plan.vary]
        room = max(width - sum(widths) - 2 * len(widths) - _FIGURES, 0)
        bar = min(room // 2, _LONGEST_BAR)
        titles = "".join(f"{knob(name):>{each}}  " for name, each in zip(names, widths, strict=True))
        titles += f"{'appends/s':>9} {'':{bar}} {'conflicts':>9} {'':{bar}} {'tries':>6} {'p99 ms':>8}"
        yield Content.styled(titles, f"bold {MUTED}")
        done = {point_text(spot.point): spot for spot in spots(sweep)}
        now = None if self._now is None or self._now.warming_up else self._now
        highest = max([spot.goodput for spot in done.values()] + ([now.goodput] if now else []), default=0.0) or 1.0
        for point in sweep.plan.points():
            values = self._values(point, names, widths)
            spot = done.get(point_text(point))
            if spot is not None:
                figures = spot.goodput, spot.conflict_rate, spot.tries_per_success, spot.p99
                yield Content.assemble((values, "bold"), *_figures(figures, highest, bar, live=False))
            elif self._turn is not None and self._turn.point == point:
                if now is None:
                    yield Content.assemble((values, "bold"), (f"{'…':>9}", MUTED))
                else:
                    figures = now.goodput, now.conflict_rate, now.tries_per_success, now.p99_ms
                    yield Content.assemble((values, "bold"), *_figures(figures, highest, bar, live=True))
            else:
                yield Content.styled(f"{values}{'-':>9}", MUTED)

    @staticmethod
    def _values(point: dict[str, Value], names: Sequence[str], widths: Sequence[int]) -> str:
        pairs = zip(names, widths, strict=True)
        return "".join(f"{visible(value_text(point[name]), limit=each):>{each}}  " for name, each in pairs)


def _figures(
    figures: tuple[float, float, float, float], highest: float, bar: int, *, live: bool
) -> list[tuple[str, str]]:
    """Return the figures of a line with their bars; those of a run under way are muted."""
    goodput, conflict_rate, tries, p99 = figures
    text = MUTED if live else ""
    return [
        (f"{goodput:>9,.0f} ", text),
        (_bar(goodput / highest, bar), "$primary 50%" if live else "$primary"),
        (f" {conflict_rate:>9.1%} ", text),
        (_bar(conflict_rate, bar), "$error 50%" if live else "$error"),
        (f" {f'{tries:.2f}' if tries else '-':>6} {milliseconds(p99):>8}", text),
    ]


def _bar(share: float, width: int) -> str:
    """Return a bar for a share of `width` cells, in eighths of a cell."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    return ("█" * (eighths // 8) + (_PARTS[eighths % 8] if eighths % 8 else "")).ljust(width)

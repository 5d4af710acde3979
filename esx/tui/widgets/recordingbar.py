"""The line that says that a recording is shown, of what time, and how to move in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from esx.text import lapse, sparkline, visible
from esx.times import clock
from esx.tui.cells import MUTED

if TYPE_CHECKING:
    from datetime import datetime

    from esx.capsule.format import CapsuleInfo
    from esx.capsule.player import Player

_HINT = "P plays  , . step  ( ) speed  @ jumps"


def _slice(info: CapsuleInfo) -> str:
    """Return which events a recording has of those of its store, "" for all."""
    if not info.left_out:
        return ""
    of = "" if info.filter is None else f" of {visible(info.filter, limit=20)}"
    begin = f" after {info.after:,}" if info.since is None else f" since {clock(info.since)}"
    return f"events{of}{begin if info.since is not None or info.after > 0 else ''} only"


class RecordingBar(Static):
    """Shows the recorded clock; a click on the line of time goes there."""

    class Wanted(Message):
        """A time was clicked."""

        def __init__(self, at: datetime) -> None:
            super().__init__()
            self.at = at

    ALLOW_SELECT = False
    DEFAULT_CSS: ClassVar[str] = """
    RecordingBar {
        height: 1; padding: 0 1; background: $warning 25%; color: $foreground;
        text-wrap: nowrap; text-overflow: ellipsis;
    }
    """

    def __init__(self, player: Player) -> None:
        super().__init__(id="recording")
        self._player = player
        self._line = (0, 0)
        """Where the line of time begins and how long it is, in cells."""
        self._written: Content | None = None

    def on_mount(self) -> None:
        """Write it, and again as the clock goes."""
        self.write()
        self.set_interval(0.1, self.write)

    def on_resize(self, _event: events.Resize) -> None:
        """Fit the line of time into the width."""
        self.write()

    def write(self) -> None:
        """Write what the clock says now."""
        text = self._text(max(self.size.width, 20))
        if text != self._written:
            self._written = text
            self.update(text, layout=False)

    def _text(self, width: int) -> Content:
        player = self._player
        timeline = player.timeline
        sign = "▶" if player.playing else "paused"
        speed = f"{player.speed:g}x"
        part = f"{player.at.microsecond // 100_000}"
        # The events that it lacks are missing in all lists, counts and states.
        sliced = timeline.info.left_out
        named = "of a slice" if sliced else ""
        if width >= 100:
            named = f"{player.name}, a slice " if sliced and width < 130 else f"{player.name} "
        left = f"RECORDING {f'{named} ' if named else ''}{clock(player.at)}.{part}  {sign} {speed} "
        parted = f" {_slice(timeline.info)}" if width >= 130 else ""
        unknown = "" if timeline.recorded(player.at) else "not recorded "
        before = (player.at - timeline.info.begun).total_seconds()
        where = f" {'+' if before >= 0 else '-'}{lapse(abs(before))}"
        hint = f"  {_HINT}" if width >= 180 else ""
        room = width - sum(map(cell_len, (left, unknown, where, parted, hint)))
        bars = max(room, 0)
        self._line = (cell_len(left) + cell_len(unknown), bars)
        return Content.assemble(
            (left, "bold"),
            (unknown, "$text-warning bold"),
            *self._bars(bars),
            (where, ""),
            (parted, MUTED),
            (hint, MUTED),
        )

    def _bars(self, cells: int) -> list[tuple[str, str]]:
        """Return the line of time: how many events appeared when, with the place of the clock."""
        if cells < 4:
            return []
        timeline = self._player.timeline
        place = min(int(timeline.share(self._player.at) * cells), cells - 1)
        counts = timeline.density(cells)
        # Those from before the time that was asked for are all at its begin, and would hide the others.
        top = max(counts[1:], default=0) or 1
        bars = sparkline([min(count, top) for count in counts], cells, top=top)
        known = int(timeline.share(timeline.info.begun) * cells)
        # What was not recorded is muted.
        pieces = [(bars[at], MUTED if at < known else "$text-primary") for at in range(cells)]
        pieces[place] = ("┃", "bold $text-warning")
        joined: list[tuple[str, str]] = []
        for text, style in pieces:
            if joined and joined[-1][1] == style:
                joined[-1] = (joined[-1][0] + text, style)
            else:
                joined.append((text, style))
        return joined

    def on_click(self, event: events.Click) -> None:
        """Go to the time at that place of the line."""
        begin, cells = self._line
        at = event.x - self.styles.padding.left - begin
        if 0 <= at < cells:
            self.post_message(self.Wanted(self._player.timeline.at_share(at / cells)))

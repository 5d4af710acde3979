"""A list of rows in columns that draws only the lines on screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive, var
from textual.scrollbar import ScrollDown, ScrollUp
from textual.strip import Strip

from esx.tui.cells import fit, line_of, tint_style
from esx.tui.keymap import Keyed
from esx.tui.lists.column import ListColumn, Row, measured, widths_of
from esx.tui.tasks import SETTLE, Delay
from esx.tui.widgets.brush import Brush, BrushedView, role_classes


@dataclass
class _AboutRow(Message):
    """Something happened to a row of a list."""

    table: RowTable[Any]
    row: Any

    @property
    def control(self) -> RowTable[Any]:
        """The list."""
        return self.table


class RowTable(Keyed, BrushedView, Generic[Row], can_focus=True, inherit_bindings=False):
    """Rows under a line of titles, with a cursor. The rows are set from outside; nothing is loaded here.

    The rows may be a part of a longer list of `length` rows; `rows[0]` is then its row number `first`. The cursor and
    the scrollbar count in rows of the whole list. Texts of cells must be safe to show.
    """

    ALLOW_SELECT = False
    KEYMAP_PREFIX = "list"
    ROLES = "row-table"
    WITH_BACKGROUND = frozenset({"cursor", "cursor-blurred", "hover", "lit"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("home,g", "first", "First", show=False),
        Binding("end,G", "last", "Last", show=False),
        Binding("enter", "choose", "Open", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = role_classes(
        "row-table", "title cursor cursor-blurred hover lit muted strong number problem"
    )
    DEFAULT_CSS = """
    RowTable {
        overflow-y: scroll;
        & > .row-table--title { color: $text-muted; text-style: bold; }
        & > .row-table--cursor { background: $block-cursor-background; color: $block-cursor-foreground; }
        & > .row-table--cursor-blurred { background: $row-blurred; }
        & > .row-table--hover { background: $boost; }
        & > .row-table--lit { background: $foreground 10%; text-style: bold; }
        & > .row-table--muted { color: $text-muted; }
        & > .row-table--strong { text-style: bold; }
        & > .row-table--number { color: $text-muted; }
        & > .row-table--problem { color: $text-error; }
    }
    """

    # The number of rows changes with each page, and must not cause a new layout of the screen: the scrollbar always has
    # its room.
    virtual_size = Reactive(Size(0, 0), layout=False)
    empty = var("")
    """The text where there are no rows."""
    problem = var("")
    """The error that is shown in place of rows."""

    def watch_virtual_size(self, size: Size) -> None:
        """Tell the scrollbar how long the list is now."""
        self._scroll_update(size)

    def _draw_if_empty(self) -> None:
        if not self.rows:
            self.refresh()

    watch_empty = watch_problem = _draw_if_empty

    class Highlighted(_AboutRow):
        """The cursor rests on another row."""

    class Chosen(_AboutRow):
        """A row was chosen, with enter or a double click."""

    class Widened(_AboutRow):
        """The rows on screen need other widths than before."""

    def __init__(self, columns: Sequence[ListColumn[Row]], *, id: str, empty: str) -> None:
        super().__init__(id=id)
        self.columns = list(columns)
        self.rows: list[Row] = []
        self.first = 0
        self.length = 0
        self.cursor = 0
        self.set_reactive(RowTable.empty, empty)
        self._shown: tuple[object, ...] = ()
        self._hover: int | None = None
        self._last_row: Row | None = None
        self._rest = Delay(self, SETTLE, self._rested)
        self._widths: tuple[int, list[int]] = (-1, [])
        self.needed: list[int] = measured(self.columns, [])
        """How many cells each column needs for the rows that have been on screen."""
        self.rows_on_screen: list[Row] = []
        self._body_height = 1
        self._ages: list[str] = []
        self.lit: list[Row] = []
        """The rows that are marked, because they have just changed."""

    def refresh_ages(self) -> None:
        """Draw the rows again, if time has changed what they say; to draw them all each second would cost a percent."""
        texts = [column.cell(row).text for column in self.columns if column.ages for row in self.rows_on_screen]
        if texts != self._ages:
            self._ages = texts
            self.refresh(*self._age_regions())

    def _age_regions(self) -> Iterator[Region]:
        """Yield where the ages are: to draw whole lines each second would cost more than all else of an idle screen."""
        at = 0
        for column, width in zip(self.columns, self.column_widths(self.scrollable_content_region.width), strict=True):
            if width:
                if column.ages:
                    yield Region(at, 1, width, self.body_height)
                at += width + 1

    def light(self, rows: Sequence[Row]) -> None:
        """Mark rows for a second."""
        self.lit = list(rows)
        if rows:
            self.refresh()
            self.set_timer(1, self._darken)

    def _darken(self) -> None:
        self.lit = []
        self.refresh()

    def forget_widths(self) -> None:
        """Lay out changed columns."""
        self._widths = (-1, [])
        self.needed = measured(self.columns, [])
        self.rows_on_screen = []
        self.refresh()

    def _fit_columns(self, rows: list[Row]) -> None:
        """Widen columns for rows that have come on screen. They get no narrower: that would be restless."""
        before, self.rows_on_screen = self.rows_on_screen, rows
        if rows == before:
            return
        for column in self.columns:
            if column.prepare is not None:
                column.prepare(rows)
        self.make_room_for(rows, first=not before)

    def make_room_for(self, rows: Sequence[Row], *, first: bool = False) -> None:
        """Widen columns for rows, on screen or not."""
        needed = [max(*both) for both in zip(measured(self.columns, rows), self.needed, strict=True)]
        if needed != self.needed or first:
            self.needed = needed
            self._widths = (-1, [])
            self.refresh()
            self.post_message(self.Widened(self, self.row))

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        at = self.cursor - self.first
        return self.rows[at] if 0 <= at < len(self.rows) else None

    @property
    def top_row(self) -> Row | None:
        """The first row on screen; None if it is the first of the list."""
        at = self.scroll_offset.y - self.first
        return self.rows[at] if self.scroll_offset.y > 0 and 0 <= at < len(self.rows) else None

    @property
    def body_height(self) -> int:
        """How many rows fit on screen."""
        return max(self.scrollable_content_region.height - 1, 1)

    @property
    def last(self) -> int:
        """The number of the last row, `first` - 1 if there is none."""
        return self.first + len(self.rows) - 1

    def set_rows(self, rows: list[Row], *, cursor: int, offset: int, first: int = 0, length: int | None = None) -> None:
        """Show `rows`, the cursor on row number `cursor`, and row number `offset` at the top, all at once."""
        self.rows = rows
        self.first = first
        self.length = max(first + len(rows), length or 0)
        self.cursor = max(first, min(cursor, self.last))
        self.virtual_size = Size(0, self.length + 1)
        self.scroll_to(y=offset)
        # A page that was loaded above or below the screen changes nothing on it.
        before = self._shown
        self._note_picture()
        if self._shown != before:
            self.refresh()
        self._tell()

    def _note_picture(self) -> None:
        """Note a copy of what is, or will be, on screen: `rows` may be changed in place."""
        top = self.scroll_offset.y
        height = self.scrollable_content_region.height
        start, end = max(top - self.first, 0), max(top + height - self.first, 0)
        places = min(self.length - top, height)
        said = "" if self.rows else self.problem or self.empty
        rows = self.rows[start:end]
        self._shown = top, self.first - top + start, rows, self.cursor, places, said
        self._fit_columns(rows)

    def move_to(self, index: int) -> None:
        """Put the cursor on a row and show it."""
        before = self.cursor
        self.cursor = max(self.first, min(index, self.last))
        self._show_cursor()
        if self.cursor != before:
            self._refresh_row(before)
            self._refresh_row(self.cursor)
            self._note_picture()
        self._tell()

    def _refresh_row(self, index: int) -> None:
        # Below the line of titles.
        self.refresh_line(index + 1)

    def _show_cursor(self) -> None:
        top = self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor)
        elif self.cursor >= top + self.body_height:
            self.scroll_to(y=self.cursor - self.body_height + 1)

    def on_resize(self) -> None:
        """Keep the row under the cursor on screen, if it was, and fit the columns to the rows of the new size."""
        top = self.scroll_offset.y
        was_shown = top <= self.cursor < top + self._body_height
        self._body_height = self.body_height
        if was_shown:
            self._show_cursor()
        self.forget_widths()
        self._note_picture()

    def _tell(self) -> None:
        if self.row != self._last_row:
            self._last_row = self.row
            self._rest.restart()

    def _rested(self) -> None:
        # The row of now, not of when the timer was set: a timer that is stopped may still call once.
        self.post_message(self.Highlighted(self, self.row))

    def action_move(self, by: int) -> None:
        """Move the cursor by rows."""
        self.move_to(self.cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by screens."""
        self.move_to(self.cursor + by * max(self.body_height - 1, 1))

    def action_first(self) -> None:
        """Go to the first row."""
        self.move_to(self.first)

    def action_last(self) -> None:
        """Go to the last row."""
        self.move_to(self.last)

    def action_choose(self) -> None:
        """Choose the row under the cursor."""
        if self.row is not None:
            self.post_message(self.Chosen(self, self.row))

    def _row_at(self, event: events.MouseEvent) -> int | None:
        offset = event.get_content_offset(self)
        if offset is None or offset.y == 0:
            return None
        index = self.scroll_offset.y + offset.y - 1
        return index if self.first <= index <= self.last else None

    def on_click(self, event: events.Click) -> None:
        """Move to the row; choose it on a double click."""
        index = self._row_at(event)
        if index is not None:
            self.move_to(index)
            if event.chain == 2:
                self.action_choose()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Mark the row under the mouse."""
        self._set_hover(self._row_at(event))

    def on_leave(self) -> None:
        """Forget the row under the mouse."""
        self._set_hover(None)

    def _set_hover(self, index: int | None) -> None:
        if index != self._hover:
            for place in (self._hover, index):
                if place is not None:
                    self._refresh_row(place)
            self._hover = index

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Note what is on screen now."""
        super().watch_scroll_y(old_value, new_value)
        self._note_picture()

    def scroll_to(self, x: float | None = None, y: float | None = None, **_how: Any) -> None:
        """Scroll at once: an animation would pass over rows that are not loaded."""
        super().scroll_to(x, y, animate=False, force=True)

    def _on_scroll_up(self, event: ScrollUp | ScrollDown) -> None:
        """Scroll to where the scrollbar was clicked, instead of by one screen."""
        event.prevent_default()
        event.stop()
        bar = self.vertical_scrollbar.region
        if bar.height > 1:
            part = (self.app.mouse_position.y - bar.y) / (bar.height - 1)
            self.scroll_to(y=round(part * self.max_scroll_y))

    _on_scroll_down = _on_scroll_up

    def column_widths(self, width: int) -> list[int]:
        """Return the width of each column in a list `width` cells wide; 0 for one that is left out."""
        if self._widths[0] != width:
            self._widths = (width, widths_of(self.columns, width, self.needed))
        return self._widths[1]

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen: the titles, a row, or nothing."""
        brush = self.brush
        width, base = brush.width, brush.base
        if y == 0:
            style = base + brush.role("title")
            return self._strip(brush, style, base, lambda column: (column.shown_title, style))
        index = self.scroll_offset.y + y - 1
        if self.first <= index <= self.last:
            return self._row_line(index, brush)
        if index < self.length:
            return Strip([Segment(fit(" ·", width), base + brush.role("muted"))], width)
        if not self.rows and y >= 2:
            text, role = (self.problem, "problem") if self.problem else (self.empty, "muted")
            return Strip([Segment(line_of(text, y - 2, width), base + brush.role(role))], width)
        return Strip.blank(width, base)

    def _row_line(self, index: int, brush: Brush) -> Strip:
        line = brush.base
        plain = False
        if index == self.cursor:
            plain = self.has_focus
            line += brush.role("cursor" if plain else "cursor-blurred")
        elif index == self._hover:
            line += brush.role("hover")
        row = self.rows[index - self.first]
        if line is brush.base and self.lit and row in self.lit:
            line += brush.role("lit")

        def cell(column: ListColumn[Row]) -> tuple[str, Style]:
            text, role, tint = column.cell(row)
            if plain or not (role or tint is not None):
                return text, line
            return text, line + (brush.role(role) if tint is None else tint_style(tint, brush.ground))

        return self._strip(brush, line, line, cell)

    def _strip(
        self, brush: Brush, gap: Style, rest: Style, cell: Callable[[ListColumn[Row]], tuple[str, Style]]
    ) -> Strip:
        """Return a line of cells and the blank rest; the lengths are known, so Textual need not measure them."""
        between = Segment(" ", gap)
        segments: list[Segment] = []
        used = 0
        for column, size in zip(self.columns, self.column_widths(brush.width), strict=True):
            if size:
                text, style = cell(column)
                segments += [Segment(fit(text, size, right=column.right, middle=column.middle), style), between]
                used += size + 1
        if used:
            segments.pop()
            used -= 1
        if used < brush.width:
            segments.append(Segment(" " * (brush.width - used), rest))
        strip = Strip(segments, max(used, brush.width))
        return strip if used <= brush.width else strip.crop(0, brush.width)

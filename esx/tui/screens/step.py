"""Stepping through a projection: each event with the rows of the read model that it changes, before and after."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from esx.database_choice import Database
from esx.errors import EsxError
from esx.model import place_text
from esx.store.operate.stepping import RowBreak, RowChange, Stepper, StepTaken
from esx.text import counted, visible
from esx.tui.cells import MUTED, Cell, tint_of
from esx.tui.dialogs.dialog import Dialog
from esx.tui.dialogs.fields import Field, Fields
from esx.tui.event.changes import compare
from esx.tui.event.jsonlayout import Span
from esx.tui.lists.column import ListColumn
from esx.tui.lists.rowtable import RowTable
from esx.tui.session.operating import writable_store
from esx.tui.tasks import cancel, start

_SHOWN = 100
"""How many changed rows of an event are shown."""
_KEPT = 1000
"""How many steps are listed."""
_LONGEST = 100_000
"""How many characters of a row are compared; of a longer one it is only said that it changed."""
_TOLD_EVERY = 0.2
_STYLES = {
    **{"key": "$text-primary", "string": "$text-success", "number": "$text-warning", "literal": "$text-accent"},
    **{"punctuation": MUTED, "label": MUTED, "heading": "bold", "path": "$text-primary", "cut": ""},
    **{"added": "bold $text-success", "removed": "bold $text-error", "changed": "bold $text-warning"},
}


class StepSettings(NamedTuple):
    """What is stepped through: a projection, its handler, which takes `batches` or single events, and its tables."""

    name: str
    handler: Callable[..., Awaitable[object]]
    tables: Sequence[str]
    batches: bool


class Breaks(NamedTuple):
    """Where to stop: at a type, a JSONPath, a row."""

    event_type: str = ""
    where: str = ""
    row: str = ""

    @property
    def said(self) -> str:
        """What to call them; empty if there are none."""
        return " or ".join(visible(each, limit=60) for each in self if each)


class StepList(RowTable[StepTaken]):
    """The steps that were taken; enter takes the next one."""

    KEYMAP_PREFIX = "step-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Next event", key_display="enter", tooltip="Handle the next event"),
    ]

    def __init__(self) -> None:
        columns = [
            ListColumn[StepTaken](
                "global", lambda each: Cell(str(each.event.global_seq), "number"), width=6, right=True
            ),
            ListColumn[StepTaken](
                "type",
                lambda each: Cell(
                    visible(each.event.event_type, limit=100), tint=tint_of(each.event.event_type, each.event.stream_id)
                ),
                share=2,
            ),
            ListColumn[StepTaken](
                "stream",
                lambda each: Cell(place_text(visible(each.event.stream_id, limit=100), each.event.stream_seq)),
                share=3,
                middle=True,
            ),
            ListColumn[StepTaken](
                "rows", lambda each: Cell(str(len(each.changes)), "" if each.changes else "muted"), width=4, right=True
            ),
        ]
        super().__init__(columns, id="step-list", empty="enter handles the first event")

    class Wanted(Message):
        """The next event is to be handled."""

    def action_choose(self) -> None:
        """Handle the next event, also where there is no row yet."""
        self.post_message(self.Wanted())


class StepScreen(Dialog[None]):
    """Steps through a projection's events. All of it is in a transaction that is rolled back at the end."""

    KEYMAP_PREFIX = "step"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "run", "On to the breakpoint", tooltip="Go on to the next breakpoint"),
        Binding("B", "undo", "Back", tooltip="Take the last step back"),
        Binding("F", "breaks", "Breakpoints", tooltip="Stop at a type, a JSONPath or a row"),
        Binding("escape", "close", "Leave"),
        Binding("q", "app.quit", "Quit", show=False),
    ]
    DEFAULT_CSS = """
    StepScreen {
        layout: vertical; background: $background;
        #step-head { height: auto; padding: 0 1; }
        #step-list {
            height: 2fr; border: round $foreground 25%; background: $surface; padding: 0 1;
            border-title-color: $text-primary; border-title-style: bold;
            &:focus { border: round $primary; }
        }
        #step-box {
            height: 3fr; border: round $foreground 25%; background: $surface; padding: 0 1;
            border-title-color: $text-primary; border-title-style: bold;
            &:focus { border: round $primary; }
        }
        #step-keys { height: 1; padding: 0 1; }
    }
    """

    def __init__(self, database: Database, settings: StepSettings) -> None:
        super().__init__()
        self._database = database
        self._settings = settings
        self._breaks = Breaks()
        self._stepper: Stepper | None = None
        self._asked: asyncio.Queue[Callable[[Stepper], Awaitable[None]]] = asyncio.Queue()
        self._busy = "connecting …"
        self._problem = ""
        self.steps = StepList()

    def compose(self) -> ComposeResult:
        """Lay out the steps above what the chosen one changed."""
        yield Static(id="step-head")
        self.steps.border_title = Content(f"steps of projection {visible(self._settings.name, limit=80)}")
        yield self.steps
        with VerticalScroll(id="step-box") as box:
            box.border_title = "what it changed"
            yield Static(id="step-changes")
        keys = "enter next event · o on to the breakpoint · B back · F breakpoints · esc leaves"
        yield Static(Content.styled(keys, MUTED), id="step-keys")

    def on_mount(self) -> None:
        """Begin."""
        self.steps.focus()
        self._write_head()
        self.set_interval(_TOLD_EVERY, self._write_head)
        start(self, self._work, "step")

    async def _work(self) -> None:
        settings = self._settings
        try:
            async with (
                writable_store(self._database) as store,
                store.step_projection(
                    settings.name, settings.handler, settings.tables, batches=settings.batches
                ) as stepper,
            ):
                self._stepper = stepper
                while True:
                    self._busy = ""
                    self._write_head()
                    deed = await self._asked.get()
                    try:
                        await deed(stepper)
                    except EsxError as error:
                        self._problem = str(error)
        except EsxError as error:
            self._problem, self._stepper, self._busy = str(error), None, ""
            self._write_head()

    def _ask(self, deed: Callable[[Stepper], Awaitable[None]], busy: str) -> None:
        if self._stepper is None or self._busy:
            return
        self._busy, self._problem = busy, ""
        self._asked.put_nowait(deed)
        self._write_head()

    # -- keys ----------------------------------------------------------------------------------------------------

    @on(StepList.Wanted)
    def _step(self) -> None:
        """Handle the next event."""

        async def step(stepper: Stepper) -> None:
            await self._took(await stepper.step())

        self._ask(step, "handling …")

    def action_run(self) -> None:
        """Go on to the next breakpoint."""
        breaks = self._breaks
        if not breaks.said:
            self.notify("set a breakpoint first: F", severity="warning")
            return
        try:
            row = RowBreak.parse(breaks.row) if breaks.row else None
        except EsxError as error:
            self.notify(visible(str(error), limit=300), severity="error")
            return

        async def run(stepper: Stepper) -> None:
            await self._took(
                await stepper.run_to(event_type=breaks.event_type or None, where=breaks.where or None, row=row)
            )

        self._ask(run, "going on …")

    def action_undo(self) -> None:
        """Take the last step back."""

        async def back(stepper: Stepper) -> None:
            undone = await stepper.back()
            if undone is None:
                self._problem = "there is no step that can be taken back"
                return
            rows = [each for each in self.steps.rows if each.event.global_seq < undone.event.global_seq]
            self._list(rows)
            await self._show(rows[-1] if rows else None)

        self._ask(back, "going back …")

    def action_breaks(self) -> None:
        """Ask where to stop."""
        breaks = self._breaks
        fields = [
            Field("event_type", "at events of this type", "Withdrawn, or With*", breaks.event_type),
            Field("where", "at events for which this JSONPath holds", "$.amount > 100", breaks.where),
            Field("row", "at events that change this row", 'balances:{"account": "account-42"}', breaks.row),
        ]

        def chosen(found: dict[str, str] | None) -> None:
            if found is not None:
                self._breaks = Breaks(**found)
                self._write_head()

        self.app.push_screen(Fields("breakpoints", fields, "the first that is met stops"), chosen)

    def action_close(self) -> None:
        """Leave, and undo all of it."""
        cancel(self, "step")
        self.end(None)

    # -- what is shown -------------------------------------------------------------------------------------------

    async def _took(self, taken: StepTaken | None) -> None:
        stepper = self._stepper
        if taken is None:
            self._problem = "that is all: B goes back" if stepper is None else f"that is all, up to {stepper.end:,}"
            return
        rows = [*self.steps.rows, taken][-_KEPT:]
        self._list(rows)
        await self._show(taken)

    def _list(self, rows: list[StepTaken]) -> None:
        self.steps.set_rows(rows, cursor=max(len(rows) - 1, 0), offset=max(len(rows) - self.steps.body_height, 0))

    @on(RowTable.Highlighted, "#step-list")
    def _highlighted(self) -> None:
        start(self, partial(self._show, self.steps.row), "show")

    async def _show(self, taken: StepTaken | None) -> None:
        width = max(self.query_one("#step-box").content_size.width, 20)
        text = Content("") if taken is None else await asyncio.to_thread(_written, taken, width)
        self.query_one("#step-changes", Static).update(text)

    def _write_head(self) -> None:
        stepper, parts = self._stepper, list[str | tuple[str, str]]()
        if stepper is not None:
            parts.append(f"at {stepper.position:,} of {stepper.end:,}")
        if self._busy:
            parts.append((f"  {self._busy}", "$text-warning"))
        if self._breaks.said:
            parts.append((f"  stops at {self._breaks.said}", "$text-accent"))
        parts.append(("  nothing stays; until you leave, it holds back vacuum in the whole cluster", MUTED))
        if self._problem:
            parts.append((f"\n{visible(self._problem, limit=500)}", "$text-error"))
        self.query_one("#step-head", Static).update(Content.assemble(*parts))


def _written(taken: StepTaken, width: int) -> Content:
    """Return an event and the rows that it changed, as lines of `width` cells."""
    event = taken.event
    parts: list[Any] = [
        (f"{event.global_seq} {visible(event.event_type, limit=200)}", "bold"),
        f" {place_text(visible(event.stream_id, limit=200), event.stream_seq)}\n",
        (f"{visible(event.data_json, limit=1000)}\n", MUTED),
    ]
    for change in taken.changes[:_SHOWN]:
        parts.append("\n")
        for line in _compared(change, width):
            parts += [(span.text, _STYLES.get(span.role, "")) for span in line] + ["\n"]
    if len(taken.changes) > _SHOWN:
        parts.append((f"\n… and {counted(len(taken.changes) - _SHOWN, 'more row')}", MUTED))
    if not taken.changes:
        parts.append(("\nit changes no row", MUTED))
    return Content.assemble(*parts)


def _compared(change: RowChange, width: int) -> list[list[Span]]:
    title = f"{visible(change.table, limit=200)}: "
    if max(len(change.before or ""), len(change.after or "")) > _LONGEST:
        return [[Span(title, "heading"), Span("a large row, esx project step --json has it", "label")]]
    if change.before is None:
        return [[Span(title, "heading"), Span("new row", "added")], _line("+ ", change.after, "added")]
    if change.after is None:
        return [[Span(title, "heading"), Span("row deleted", "removed")], _line("- ", change.before, "removed")]
    lines = compare(f"{change.table}: changed row", change.before, change.after).lines(width).lines
    return [*lines[:-1], _line("  ", change.after, "label")]


def _line(sign: str, row: str | None, role: str) -> list[Span]:
    return [Span(sign, role), Span(visible(row or "", limit=2000), "label")]

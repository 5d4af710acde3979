"""The lists of event types, and of the paths in the data of one."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from esx.fold.shape import PathShape, Sighting
from esx.fold.type_shapes import TypeShape
from esx.text import ago, counted, rate_text, visible
from esx.tui.cells import Cell, tint_of
from esx.tui.lists.column import ListColumn
from esx.tui.lists.rows import PREVIEW
from esx.tui.lists.rowtable import RowTable
from esx.tui.panels.panel import Panel
from esx.tui.session.session import ExplorerSession


class TypeList(RowTable["TypeShape"]):
    """A line for each event type."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Its events", key_display="enter", tooltip="Find the events of this type"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(_TYPES, id=id, empty="looking …")


class PathList(RowTable["PathShape"]):
    """A line for each path in the data of a type; `samples` is in how many events it was looked for."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Its events", key_display="enter", tooltip="Find the events that have this path"),
        Binding("p", "copy_path", "Copy path", tooltip="Copy the JSONPath of the value under the cursor"),
    ]

    def __init__(self, *, id: str) -> None:
        self.samples = 0
        super().__init__(self._columns(), id=id, empty="no data")

    def _columns(self) -> list[ListColumn[PathShape]]:
        return [
            ListColumn("path", lambda path: Cell(visible(path.path, limit=PREVIEW)), share=3, middle=True),
            ListColumn("types", lambda path: Cell("|".join(path.types), "muted"), share=2),
            ListColumn("in", lambda path: Cell(self._share(path), "number"), 4, right=True),
            ListColumn("changed", lambda path: Cell(changes(path), "strong"), 12, needs=30, sparse=True),
            ListColumn("example", lambda path: Cell(path.example, "muted"), needs=44, rest=True),
        ]

    def _share(self, path: PathShape) -> str:
        if path.present >= self.samples:
            return "all"
        # Not 100% for what some lack, nor 0% for what some have.
        return f"{min(max(round(100 * path.present / self.samples), 1), 99)}%"

    def action_copy_path(self) -> None:
        """Copy the path under the cursor."""
        if self.row is not None:
            self.app.copy_to_clipboard(self.row.path)
            self.notify(visible(f"{self.row.path} copied", limit=200))


class ShapePanel(Panel):
    """The shape of the data of one type."""

    def __init__(self, session: ExplorerSession, *, id: str) -> None:
        super().__init__(session, id=id)
        self.paths = PathList(id=id.removesuffix("-panel"))

    def compose(self) -> ComposeResult:
        """Lay out the list of paths."""
        self.entitle("shape")
        yield self.paths

    def show(self, one: TypeShape | None) -> None:
        """Show the shape of a type; None for none."""
        shape, paths = None if one is None else one.shape, self.paths
        paths.samples = 0 if shape is None else shape.samples
        paths.forget_widths()
        paths.set_rows([] if shape is None else list(shape.paths), cursor=0, offset=0)
        if one is None or shape is None:
            self.entitle("shape", "")
            return
        parts = [counted(shape.samples, "sample")]
        parts += [f"{shape.unread:,} are no JSON"] if shape.unread else []
        parts += ["there are more paths"] if shape.cut else []
        name = visible(one.summary.event_type, limit=60)
        self.entitle(f"{name} · shape", " · ".join(parts), way=[self.screen_title])


def changes(path: PathShape) -> str:
    """Return since when, or until when, a path is there: ``since 3d``, ``until 2h``, with how long ago that was."""
    parts = [_change("since", path.appeared), _change("until", path.vanished)]
    return " ".join(filter(None, parts))


def _change(word: str, at: Sighting | None) -> str:
    return "" if at is None else f"{word} {ago(at.created_at)}"


def _name(one: TypeShape) -> Cell:
    name = one.summary.event_type
    category = next(iter(one.summary.categories), "")
    return Cell(visible(name, limit=PREVIEW), tint=tint_of(name, f"{category}-"))


def _changed(one: TypeShape) -> Cell:
    """Say how many paths came or went, and when the last of them did."""
    found = one.changes
    return Cell(f"{counted(len(found), 'path')}, {ago(found[0].created_at)}" if found else "", "strong")


def _ends(one: TypeShape) -> str:
    return "" if one.summary.exact else "~"


_TYPES: list[ListColumn[TypeShape]] = [
    ListColumn("type", _name, share=3, middle=True),
    ListColumn("events", lambda one: Cell(one.summary.events.text, "number"), 8, right=True),
    ListColumn("rate", lambda one: Cell(rate_text(one.summary.rate), "number"), 8, right=True, needs=46),
    ListColumn(
        "first", lambda one: Cell(_ends(one) + ago(one.summary.first.created_at), "muted"), 5, right=True, needs=56
    ),
    ListColumn(
        "last", lambda one: Cell(_ends(one) + ago(one.summary.last.created_at), "muted"), 5, right=True, ages=True
    ),
    ListColumn("shape changed", _changed, width=13, right=True, needs=50, sparse=True),
    ListColumn(
        "categories",
        lambda one: Cell(", ".join(visible(name, limit=40) for name in one.summary.categories), "muted"),
        share=2,
        needs=66,
    ),
]

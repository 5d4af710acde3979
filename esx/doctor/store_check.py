"""What a store has, of any kind: what is there, what lacks, what no index serves, and what it does not promise."""

from collections.abc import Sequence

from esx.doctor.checked import Checked, CheckState
from esx.doctor.shapes import Shape, Slow, shapes, slow, stream_columns, version_column
from esx.doctor.topic import QUICK, limited
from esx.layouts.foreign.kind import NO_STREAM
from esx.layouts.foreign.own import OwnKind
from esx.layouts.foreign.recognition import FoundStore, Lookalike
from esx.layouts.foreign.tables import NO_METADATA
from esx.layouts.layout import Layout
from esx.postgres.session import Session
from esx.text import visible


async def check_layout(connection: Session, layout: Layout) -> list[Checked]:
    """Check a store that can be read. No event is read."""
    return [*_promises(layout), *await limited(connection, lambda session: _served(session, layout), QUICK)]


def lacks(found: Sequence[FoundStore], near: Sequence[Lookalike], name: str | None) -> list[Checked]:
    """Return what lacks in the stores of that name, or kind, that cannot be read; None means any.

    Tables that only look like a store count where there is none.
    """

    def meant(each: FoundStore | Lookalike) -> bool:
        return name in (None, each.kind.name, each.table.quoted)

    stores: list[FoundStore | Lookalike] = [each for each in found if meant(each)]
    lines = []
    for each in stores or [each for each in near if meant(each)]:
        where = f"{visible(each.table.quoted, limit=200)} as a store of {each.kind.title}"
        for missing in each.missing:
            part = missing if " " in missing else f"column {missing}"
            lines.append(Checked("tables", CheckState.MISSING, f"{where} lacks {visible(part, limit=100)}"))
    return lines


def _promises(layout: Layout) -> list[Checked]:
    foreign = layout.foreign
    kind = "esx" if foreign is None else foreign.kind.title
    stored = [layout.stored("global_seq"), *stream_columns(layout), version_column(layout)]
    called = visible(layout.called, limit=200)
    named = ", ".join(visible(each, limit=60) for each in stored if each)
    lines = [_line("tables", None, f"{called}, read as a store of {kind} by {named}")]
    order = layout.disordered
    rule = _rule(layout)
    lines.append(_line("order", order, rule if layout.warning is None else f"{rule}; {layout.warning}"))
    place = " and ".join(each or "an expression" for each in stored[1:])
    lacks = f"no unique index on {place} alone keeps two events from one place of a stream"
    if foreign is not None and foreign.reading.columns.stream_id == NO_STREAM:
        lacks = "events belong to no streams"
    lines.append(
        _line(
            "places",
            None if layout.placed else lacks,
            f"a unique index keeps two events from one place of a stream ({place})",
        )
    )
    bare = foreign is not None and foreign.reading.columns.metadata == NO_METADATA
    lines.append(
        _line("time", None if layout.timed else "events have no time: none can be found by it", "events have it")
    )
    lines.append(_line("metadata", _without_metadata(layout) if bare else None, "events have it"))
    lines.append(_line("event ids", "events have none" if layout.event_id is None else None, "events have them"))
    return lines


def _without_metadata(layout: Layout) -> str:
    reading = None if layout.foreign is None else layout.foreign.reading
    if reading is None or (reading.correlation is None and reading.causation is None):
        return "events have none: there is no trail"
    return "events have none; the trail finds the ids of correlation and causation elsewhere in them"


def _rule(layout: Layout) -> str:
    kind = None if layout.foreign is None else layout.foreign.kind
    own = kind.layout if isinstance(kind, OwnKind) else None
    if own is not None and own.rule == "none needed":
        return f"numbers appear in their order, as {own.key} says"
    rule = "positions are safe by the locks of the writers"
    if own is not None and layout.base_sequence is None:
        return f"{rule}, if the statement that inserts draws the number: no sequence belongs to the column"
    return rule


def _line(about: str, not_promised: str | None, text: str) -> Checked:
    if not_promised is not None:
        return Checked(about, CheckState.NOT_PROMISED, not_promised)
    return Checked(about, CheckState.OK, text)


async def _served(connection: Session, layout: Layout) -> list[Checked]:
    lines = []
    for shape in shapes(layout):
        problem = await slow(connection, layout, shape)
        if problem is None:
            lines.append(Checked(shape.about, CheckState.OK, "an index serves it"))
        elif problem.within:
            text = "an index finds the stream, of which all events are sorted for each page"
            lines.append(Checked(shape.about, CheckState.OK, text))
        else:
            text = f"{problem.problem}: {_remedy(layout, shape, problem)}"
            lines.append(Checked(shape.about, CheckState.SLOW, visible(text)))
    if layout.prefix_range() == "true":
        why = "ids with a prefix are no range of an index, as they do not sort by their bytes: all ids are looked at"
        lines.append(Checked("streams by prefix", CheckState.SLOW, why))
    return lines


def _remedy(layout: Layout, shape: Shape, problem: Slow) -> str:
    if problem.table != layout.name or not all(all(index) for index in shape.indexes):
        return "it needs an index on what it is found by"
    indexes = " and one ".join(f"on ({', '.join(index)})" for index in shape.indexes)
    return f"it needs an index {indexes}"

"""A trail: the events of one correlation id, and which event caused which. Plain values, no database."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from esx.errors import InvalidQuery
from esx.filters import CORRELATION_NAMES
from esx.moment import FarTime
from esx.text import lapse, visible

_UUID_LENGTH = 36


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The names of the ids in metadata that connect events; of several names, the first that is there counts.

    `correlation` is the id that all events caused by one request share, `causation` the id of the event (or command)
    that caused this one, `identity` the event's own id, beside the column event_id. Raises InvalidQuery without names
    for the first two, and for an empty name.
    """

    correlation: tuple[str, ...] = CORRELATION_NAMES
    causation: tuple[str, ...] = ("causation_id", "causationId", "$causationId", "causation-id")
    identity: tuple[str, ...] = ("event_id", "eventId", "message_id", "messageId", "id")

    def __post_init__(self) -> None:
        for what in ("correlation", "causation"):
            names = getattr(self, what)
            if not names or not all(names) or any("\0" in name for name in names):
                raise InvalidQuery(
                    f"the names of the {what} id in metadata are {names!r}: give at least one, none empty"
                )


NUMBERS = frozenset(["causationMessageGlobalPosition"])
"""Names for a cause that mean its number in the global order: that of Message DB."""
COMMON_FIELDS = FieldNames()
"""The names in common use."""


class TrailEvent(NamedTuple):
    """An event as a trail needs it: `preview` is the start of its data as text, None where data are large.

    `data_bytes` is their size, as in `EventPreview`. `own_id` is its id in metadata, `cause` the id of its cause; None
    if metadata has none.
    """

    global_seq: int
    stream_id: str
    stream_seq: int
    event_type: str
    preview: str | None
    created_at: datetime | None
    event_id: UUID | None
    own_id: str | None
    cause: str | None
    data_bytes: int = 0

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids by which other events may name it."""
        return tuple(str(one) for one in (self.event_id, self.own_id) if one is not None)


class Causation(StrEnum):
    """How an event is connected to its cause."""

    ROOT = "root"
    """It names no cause."""
    CAUSED = "caused"
    """Its cause is in the trail."""
    ABSENT = "absent"
    """Its cause is not in the trail: a command, an event of another trail, or one that is not stored."""
    CIRCLE = "circle"
    """Its causes lead back to itself; the circle is cut here, at its first event."""


_ROOTS = {Causation.ROOT: "● ", Causation.ABSENT: "◌ ", Causation.CIRCLE: "↻ "}


class TrailNode(NamedTuple):
    """An event in its place: `parent` is the index of its cause among the nodes, `depth` counts causes up to a root.

    `only` says that its cause caused nothing else, `last` that no sibling follows. `fork` is the index of the nearest
    event among its causes that has siblings itself.
    """

    event: TrailEvent
    link: Causation
    parent: int | None
    depth: int
    only: bool
    last: bool
    fork: int | None


@dataclass(frozen=True, slots=True)
class Scan:
    """What was read for lack of an index: `looked` events, which were all there are if `whole`.

    `indexes` are the statements that would make it unnecessary; none for the store of another tool.
    """

    looked: int
    whole: bool
    indexes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trail:
    """The events of a trail: `nodes` in global order, and `tree`, the indexes of the nodes in the order of the tree.

    They share the id `correlation`, found under the name `field`. Both are None if the event asked for has no
    correlation id; then the events are its causes and effects. `anchor` is the global_seq asked for, None if it was a
    correlation id. `more` says that there are more events than the limit.
    """

    field: str | None
    correlation: str | None
    anchor: int | None
    nodes: tuple[TrailNode, ...]
    tree: tuple[int, ...]
    more: bool
    scan: Scan | None

    def rails(self, index: int, *, most: int = 10) -> str:
        """Return the lines of the tree in front of a node.

        An arrow marks the only effect of the line above, so a chain runs straight down; several effects of an event
        branch off. A full dot marks an event without a cause, a dotted one an event whose cause is not in the trail, a
        round arrow a circle. Above `most` levels of branches the depth is a number.
        """
        node = self.nodes[index]
        if node.parent is None:
            return _ROOTS[node.link]
        pieces = ["↓ " if node.only else "└─ " if node.last else "├─ "]
        fork = node.fork
        while fork is not None:
            above = self.nodes[fork]
            if len(pieces) > most:
                pieces.append(f"…{node.depth} ")
                break
            pieces.append("   " if above.last else "│  ")
            fork = above.fork
        return "".join(reversed(pieces))


def make_trail(
    events: Iterable[TrailEvent],
    *,
    field: str | None,
    correlation: str | None,
    anchor: int | None,
    more: bool,
    scan: Scan | None,
) -> Trail:
    """Return the trail of `events`, given in any order; an event that is given twice counts once."""
    ordered = sorted({event.global_seq: event for event in events}.values())
    nodes, tree = _arrange(ordered)
    return Trail(field, correlation, anchor, nodes, tree, more, scan)


def _arrange(events: Sequence[TrailEvent]) -> tuple[tuple[TrailNode, ...], tuple[int, ...]]:
    places: dict[str, int] = {}
    for place, event in enumerate(events):
        for one in event.ids:
            places.setdefault(same(one), place)
    parents = [None if event.cause is None else places.get(same(event.cause)) for event in events]
    cut = _cut_circles(parents)
    children: list[list[int]] = [[] for _ in events]
    for place, parent in enumerate(parents):
        if parent is not None:
            children[parent].append(place)
    tree: list[int] = []
    depths = [0] * len(events)
    forks: list[int | None] = [None] * len(events)
    waiting = [place for place in reversed(range(len(events))) if parents[place] is None]
    while waiting:
        place = waiting.pop()
        tree.append(place)
        parent = parents[place]
        branches = parent is not None and len(children[parent]) > 1
        for child in reversed(children[place]):
            depths[child] = depths[place] + 1
            forks[child] = place if branches else forks[place]
            waiting.append(child)
    nodes = []
    for place, (event, parent) in enumerate(zip(events, parents, strict=True)):
        siblings = [] if parent is None else children[parent]
        only, last = len(siblings) == 1, not siblings or siblings[-1] == place
        nodes.append(
            TrailNode(event, _link(event, parent, place in cut), parent, depths[place], only, last, forks[place])
        )
    return tuple(nodes), tuple(tree)


def _link(event: TrailEvent, parent: int | None, cut: bool) -> Causation:
    if cut:
        return Causation.CIRCLE
    if parent is not None:
        return Causation.CAUSED
    return Causation.ROOT if event.cause is None else Causation.ABSENT


def _cut_circles(parents: list[int | None]) -> set[int]:
    """Take the parent from the first node of every circle, so that trees are left; return those nodes."""
    cut: set[int] = set()
    walked = [0] * len(parents)
    """The walk in which a node was met, 0 for none yet."""
    for start in range(len(parents)):
        at: int | None = start
        while at is not None and not walked[at]:
            walked[at] = start + 1
            at = parents[at]
        if at is None or walked[at] != start + 1:
            continue
        circle = [at]
        while (after := parents[circle[-1]]) is not None and after != at:
            circle.append(after)
        first = min(circle)
        parents[first] = None
        cut.add(first)
    return cut


def same(one: str) -> str:
    """Return an id in a form in which a UUID in capitals is equal to one in small letters."""
    return one.lower() if len(one) == _UUID_LENGTH else one


def headline(trail: Trail) -> str:
    """Return a line about the trail: its correlation id, how many events it has, and how long they took."""
    return f"{what(trail)}: {extent(trail)}"


def what(trail: Trail) -> str:
    """Return the correlation id with the name of its field, or that there is none."""
    if trail.correlation is None:
        return f"causes and effects of event {trail.anchor}, which has no correlation id"
    return f"{visible(trail.field or '', limit=80)} {visible(trail.correlation, limit=200)}"


def extent(trail: Trail) -> str:
    """Return how many events of how many streams it has, and how long they took."""
    events = [node.event for node in trail.nodes]
    times = [at for at in (event.created_at for event in events) if at is not None and not isinstance(at, FarTime)]
    span = f" in {lapse((max(times) - min(times)).total_seconds())}" if len(times) > 1 else ""
    streams = _counted(len({event.stream_id for event in events}), "stream")
    return f"{'the first ' if trail.more else ''}{_counted(len(events), 'event')} of {streams}{span}"


def remark(node: TrailNode) -> str:
    """Return a note about an event whose cause is not in the tree; empty for other events."""
    if node.link is Causation.ABSENT:
        return f"caused by {visible(node.event.cause or '', limit=100)}, which is not among these"
    return "its causes lead back to itself" if node.link is Causation.CIRCLE else ""


def since(trail: Trail, node: TrailNode) -> str:
    """Return the time of an event, counted from the first event of the trail."""
    times = (one.event.created_at for one in trail.nodes)
    begin = next((at for at in times if at is not None and not isinstance(at, FarTime)), None)
    at = node.event.created_at
    if isinstance(at, FarTime):
        return at.age
    if begin is None or at is None:
        return "-"
    span = lapse((at - begin).total_seconds())
    return span if span.startswith("-") else f"+{span}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

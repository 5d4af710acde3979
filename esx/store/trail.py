"""A trail: what belongs to one correlation id, and which event caused which. Plain values, no database."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from esx.moment import FarTime
from esx.store.errors import InvalidQuery
from esx.text import lapse, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

_UUID_LENGTH = 36


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Under which names metadata holds the ids that tie events together; of several, the first that is there counts.

    `correlation` is the id that everything caused by one request shares, `causation` the id of the event (or command)
    that caused this one, `identity` the event's own id, besides the column event_id. Raises InvalidQuery for no name.
    """

    correlation: tuple[str, ...] = ("correlation_id", "correlationId", "$correlationId", "correlation-id")
    causation: tuple[str, ...] = ("causation_id", "causationId", "$causationId", "causation-id")
    identity: tuple[str, ...] = ("event_id", "eventId", "message_id", "messageId", "id")

    def __post_init__(self) -> None:
        for what in ("correlation", "causation"):
            names = getattr(self, what)
            if not names or not all(names) or any("\0" in name for name in names):
                raise InvalidQuery(
                    f"the names of the {what} id in metadata are {names!r}: give at least one, none empty"
                )


COMMON_FIELDS = FieldNames()
"""The conventions in common use."""


class TrailEvent(NamedTuple):
    """An event as a trail needs it: `preview` is the start of its data as text, None where data are large.

    `own_id` is its id by metadata, `cause` the id of what caused it; None where metadata do not say.
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

    @property
    def ids(self) -> tuple[str, ...]:
        """Every id that others may name it by."""
        return tuple(str(one) for one in (self.event_id, self.own_id) if one is not None)


class Link(Enum):
    """How an event hangs in the causation tree."""

    ROOT = "root"
    """Nothing says what caused it."""
    CAUSED = "caused"
    """Its cause is in the trail."""
    ABSENT = "absent"
    """What caused it is not in the trail: a command, an event of another trail, or nothing that is stored."""
    CIRCLE = "circle"
    """Its causes lead back to itself; the circle is cut open here, at its first event."""

    def __str__(self) -> str:
        return self.value


_ROOTS = {Link.ROOT: "● ", Link.ABSENT: "◌ ", Link.CIRCLE: "↻ "}


class TrailNode(NamedTuple):
    """An event in its place: `parent` is the index of its cause among the nodes, `depth` counts causes up to a root.

    `only` says that its cause caused nothing else, `last` that no sibling follows. `fork` is the index of the nearest
    event among its causes that has siblings itself.
    """

    event: TrailEvent
    link: Link
    parent: int | None
    depth: int
    only: bool
    last: bool
    fork: int | None


@dataclass(frozen=True, slots=True)
class Scan:
    """What was read for lack of an index: `looked` events, which were all there are if `whole`.

    `indexes` are the statements that would make it unnecessary.
    """

    looked: int
    whole: bool
    indexes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trail:
    """Events that belong together, `nodes` in their global order and `tree` the same by cause, as indexes of nodes.

    They share `correlation`, found in metadata under `field`; both are None where the event asked for has none, and
    then they are what it was caused by and what it caused. `anchor` is the global_seq asked for, None where a
    correlation id was. `more` says that there are more events than were asked for.
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

        An arrow stands for the effect of the line above, so that a chain runs straight down; only where an event has
        several effects do they branch off. A full dot begins what nothing is said to have caused, a dotted one what
        something outside caused, a round arrow a circle. Beyond `most` levels of branches the depth is
        told instead of drawn.
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
    """Return the trail of `events`, in whatever order they come; an event that comes twice counts once."""
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


def _link(event: TrailEvent, parent: int | None, cut: bool) -> Link:
    if cut:
        return Link.CIRCLE
    if parent is not None:
        return Link.CAUSED
    return Link.ROOT if event.cause is None else Link.ABSENT


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
    """Return an id so that a UUID written in capitals is the same one."""
    return one.lower() if len(one) == _UUID_LENGTH else one


def headline(trail: Trail) -> str:
    """Return a line that says what the trail is: its correlation id, how much it holds, and how long it took."""
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
    """Return what to say of an event whose cause is not shown above it; nothing for the others."""
    if node.link is Link.ABSENT:
        return f"caused by {visible(node.event.cause or '', limit=100)}, which is not among these"
    return "its causes lead back to itself" if node.link is Link.CIRCLE else ""


def since(trail: Trail, node: TrailNode) -> str:
    """Return when an event was made, counted from the first of the trail."""
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

"""Everything that can go wrong, as types. Each message is one line that names the input and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.text import visible

if TYPE_CHECKING:
    from esx.store.model import ExpectedVersion
    from esx.store.trail import Scan


class EsxError(Exception):
    """The base of every error that esx raises on purpose."""


class WrongVersion(EsxError):
    """The stream was not at the expected version: a conflict. Nothing was appended.

    `actual` is the stream's version when the append was refused, -1 if it has no events. `below` says that it has
    events whose stream_seq all are below 0, as esx writes none: `actual` is the highest.
    """

    def __init__(self, stream_id: str, expected: ExpectedVersion, actual: int, below: bool = False) -> None:
        self.stream_id = stream_id
        self.expected = expected
        self.actual = actual
        self.below = below
        now = "the stream has no events" if actual < 0 else f"its version is {actual}"
        if below:
            now = f"it has events whose stream_seq is below 0, the highest {actual}"
        super().__init__(f"wrong version of stream {visible(stream_id, limit=200)}: expected {expected}, but {now}")

    def __reduce__(self) -> tuple[type[WrongVersion], tuple[str, ExpectedVersion, int, bool]]:
        return WrongVersion, (self.stream_id, self.expected, self.actual, self.below)


class InvalidEvent(EsxError):
    """PostgreSQL cannot store an event of the batch, or it breaks a rule of the store. Nothing was appended.

    `index` is the event's place in the batch, from 0; `reason` says what is wrong with it.
    """

    def __init__(self, index: int, reason: str) -> None:
        self.index = index
        self.reason = reason
        super().__init__(f"event {index} of the batch cannot be stored: {reason}")

    def __reduce__(self) -> tuple[type[InvalidEvent], tuple[int, str]]:
        return InvalidEvent, (self.index, self.reason)


class EventIdsReused(EsxError):
    """Some event ids of the batch are stored already, but not as this batch. Nothing was appended.

    A retry must repeat the batch exactly; other events need ids of their own.
    """

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        super().__init__(
            f"event ids of this append to stream {visible(stream_id, limit=200)} are stored already, and not by one "
            "like it: repeat an append exactly, or give its events new ids"
        )

    def __reduce__(self) -> tuple[type[EventIdsReused], tuple[str]]:
        return EventIdsReused, (self.stream_id,)


class UnreadableValue(EsxError):
    """PostgreSQL holds a value that Python cannot: `column` of the event `global_seq`; `reason` says what to do.

    The event itself, and everything else of it, can be read.
    """

    def __init__(self, global_seq: int, column: str, reason: str) -> None:
        self.global_seq = global_seq
        self.column = column
        self.reason = reason
        super().__init__(f"{column} of event {global_seq} {reason}")

    def __reduce__(self) -> tuple[type[UnreadableValue], tuple[int, str, str]]:
        return UnreadableValue, (self.global_seq, self.column, self.reason)


class InvalidQuery(EsxError):
    """A filter, pattern or position that PostgreSQL does not accept."""


class NotFound(EsxError):
    """There is no such event, or, unless `certain`, none was found in what may be looked at."""

    certain = True

    @classmethod
    def trail(cls, of: int | str, scan: Scan | None) -> NotFound:
        """Return the error for a trail that begins nowhere, with what was looked at."""
        if isinstance(of, int):
            return cls(f"there is no event with global_seq {of}")
        name = visible(of, limit=200)
        if scan is None or scan.whole:
            return cls(f"nothing has the id {name}: neither an event, nor any as its correlation id")
        error = cls(
            f"nothing among the newest {scan.looked:,} events has the id {name}; to look further takes an index "
            f"({' '.join(scan.indexes)}) or a larger bound"
        )
        error.certain = False
        return error


class ProjectionFailed(EsxError):
    """A projection stopped: its handler raised, which is the cause, or somebody deleted it.

    `name` is the projection, `global_seq` the event it could not handle, None if it was none. What the handler wrote
    for that event is undone, what it wrote for the events before is kept, and the checkpoint stands between the two.
    """

    def __init__(self, name: str, global_seq: int | None, reason: str) -> None:
        self.name = name
        self.global_seq = global_seq
        self.reason = reason
        at = "" if global_seq is None else f" at event {global_seq}"
        super().__init__(f"projection {visible(name, limit=200)} stopped{at}: {visible(reason, limit=1000)}")

    def __reduce__(self) -> tuple[type[ProjectionFailed], tuple[str, int | None, str]]:
        return ProjectionFailed, (self.name, self.global_seq, self.reason)


class UnknownProjection(EsxError):
    """No projection has that name: each is known from the moment it is first run."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"there is no projection {visible(name, limit=200)}: `store.projections()` lists them")

    def __reduce__(self) -> tuple[type[UnknownProjection], tuple[str]]:
        return UnknownProjection, (self.name,)


class HistoryChanged(EsxError):
    """What a reader has handled up to its position is not what the store holds: nothing goes on by itself.

    `position` is where the reader stands, `head` the store's highest global_seq, `reason` says how they differ.
    `erased` are numbers of events that were handed out and are gone from the same history; it is empty if the history
    is another one. `projection` is the reader's name if it is a projection.
    """

    def __init__(
        self, position: int, head: int, reason: str, erased: tuple[int, ...] = (), projection: str | None = None
    ) -> None:
        self.position = position
        self.head = head
        self.reason = reason
        self.erased = erased
        self.projection = projection
        if projection is None:
            who, remedy = "the reader", "begin again from the start, or from a position of this store"
        else:
            who = f"projection {visible(projection, limit=200)}"
            remedy = "reset_projection rebuilds it, accept_history goes on at this position"
        super().__init__(f"{who} is at {position}, the store's head at {head}: {reason}; {remedy}")

    def __reduce__(self) -> tuple[type[HistoryChanged], tuple[int, int, str, tuple[int, ...], str | None]]:
        return HistoryChanged, (self.position, self.head, self.reason, self.erased, self.projection)


class SchemaMissing(EsxError):
    """The database has no usable events table. `elsewhere` are names of stores that it has in other places."""

    elsewhere: tuple[str, ...] = ()


class StoreNotNamed(EsxError):
    """The name events finds a view, or the like, of somebody's: it is read only where the user has named it."""


class OrderUnknown(EsxError):
    """No position can be called safe there, so there is no feed: not on a logical subscriber, nor on some views.

    `reason` says why and what to do, in one line.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class StoreUnavailable(EsxError):
    """The database cannot be reached, refused the connection, or went away."""


class StoreClosed(StoreUnavailable):
    """The store was used after, or while, it was closed."""


class OutcomeUnknown(StoreUnavailable):
    """The connection was lost, or given up, during an append, and whether it was stored could not be found out.

    With NO_STREAM or an exact version, repeating the append with the same events is safe.
    """


class QueryTimeout(EsxError):
    """A query took longer than its session allows, and PostgreSQL ended it. The connection is as good as before."""


class QueryGivenUp(QueryTimeout):
    """A query behind a connection pooler took longer than was said, and was waited for no longer.

    The limit is the client's own there: whether PostgreSQL has done it is not known. The connection is gone.
    """


class StoreFailed(EsxError):
    """PostgreSQL refused a statement for a reason that is not the caller's input."""


class QueryCancelled(StoreFailed):
    """A statement was cancelled: by somebody, as with pg_cancel_backend, or on a standby because it held up recovery.

    A passing fault: what was cancelled was not done, and the connection is as good as before. Feeds and projections go
    on by themselves, appends are tried again for as long as after a lost connection; all else raises it.
    """


class OwnerNotTrusted(StoreFailed):
    """Reading would run code of somebody else, with rights that he lacks: nothing was read.

    `owner` is whose code it is. `EventStore.connect(trust_owner=True)` reads all the same.
    """

    def __init__(self, message: str, owner: str) -> None:
        self.owner = owner
        super().__init__(message)

    def __reduce__(self) -> tuple[type[OwnerNotTrusted], tuple[str, str]]:
        return OwnerNotTrusted, (str(self), self.owner)


class NotAllowed(StoreFailed):
    """The user lacks a right, or the session may only read."""

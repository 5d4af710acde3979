"""The errors of esx. Each message is one line that names the input and the remedy.

    EsxError
        WrongVersion
        InvalidEvent
        EventIdsReused
        UnreadableValue
        InvalidQuery
        NotFound
        ProjectionFailed
        RelayFailed
        TargetFailed
            TargetUnavailable
        EventRefused
        UnknownConsumer
            UnknownProjection
        HistoryChanged
        SchemaMissing
        StoreNotNamed
        OrderUnknown
        StoreUnavailable
            StoreClosed
            OutcomeUnknown
        QueryTimeout
            QueryGivenUp
        StoreFailed
            OtherToolsConsumer
            QueryCancelled
            OwnerNotTrusted
            NotAllowed

Errors of a single task are defined with it: `ImportFailed`, `StoreNotEmpty`, `StreamTaken` and `NotMarked` in
esx.store.bulk, `ReducerFailed` in esx.fold, `EmbeddedFailed` in esx.embedded, others in esx.load. All are an EsxError.
"""

from typing import Any

from esx.expected import ExpectedVersion
from esx.text import visible


class EsxError(Exception):
    """The base class of all errors that esx raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By message and attributes, as the constructors of most subclasses take something else.
        return self.__new__, (type(self), *self.args), self.__dict__


class WrongVersion(EsxError):
    """The stream was not at the expected version: a conflict. Nothing was appended.

    `actual` is the stream's version when the append was refused, -1 if it has no events. If `below` is true, all its
    events have a stream_seq below 0, which esx never writes, and `actual` is the highest of them.
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


class InvalidEvent(EsxError):
    """PostgreSQL cannot store an event of the batch, or the event breaks a rule of the store. Nothing was appended.

    `index` is the event's index in the batch, from 0; `reason` says what is wrong with the event.
    """

    def __init__(self, index: int, reason: str) -> None:
        self.index = index
        self.reason = reason
        super().__init__(f"event {index} of the batch cannot be stored: {reason}")


class EventIdsReused(EsxError):
    """Some event ids of the batch are stored already, but not as this batch. Nothing was appended.

    A retry must repeat the batch exactly; other events need new ids.
    """

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        super().__init__(
            f"event ids of this append to stream {visible(stream_id, limit=200)} are stored already, and not by one "
            "like it: repeat an append exactly, or give its events new ids"
        )


class UnreadableValue(EsxError):
    """Python cannot hold a value that PostgreSQL holds: `column` of event `global_seq`; `reason` says what to do.

    The rest of the event can be read.
    """

    def __init__(self, global_seq: int, column: str, reason: str) -> None:
        self.global_seq = global_seq
        self.column = column
        self.reason = reason
        super().__init__(f"{column} of event {global_seq} {reason}")


class InvalidQuery(EsxError):
    """A filter, pattern or position that PostgreSQL does not accept."""


class NotFound(EsxError):
    """There is no such event; if `certain` is false, only a part of the events was searched."""

    def __init__(self, message: str, *, certain: bool = True) -> None:
        self.certain = certain
        super().__init__(message)


class ProjectionFailed(EsxError):
    """A projection stopped: its handler raised an error (the ``__cause__``), or the projection was deleted.

    `name` is the projection, `global_seq` the event that it could not handle; None for another reason. What the handler
    wrote for that event is undone, what it wrote for earlier events is kept, and the checkpoint is after those.
    """

    def __init__(self, name: str, global_seq: int | None, reason: str) -> None:
        self.name = name
        self.global_seq = global_seq
        self.reason = reason
        at = "" if global_seq is None else f" at event {global_seq}"
        super().__init__(f"projection {visible(name, limit=200)} stopped{at}: {visible(reason, limit=1000)}")


class RelayFailed(EsxError):
    """A relay stopped: its target refused an event (the ``__cause__``), or failed, or the relay was deleted.

    `name` is the relay, `global_seq` the event that was refused; None for another reason. The checkpoint is before that
    event, so nothing is lost.
    """

    def __init__(self, name: str, global_seq: int | None, reason: str) -> None:
        self.name = name
        self.global_seq = global_seq
        self.reason = reason
        at = "" if global_seq is None else f" at event {global_seq}"
        super().__init__(f"relay {visible(name, limit=200)} stopped{at}: {visible(reason, limit=1000)}")


class TargetFailed(EsxError):
    """The target of a relay cannot go on, and another attempt does not help: wrong settings, missing rights.

    `fenced` says that the target takes nothing more from this instance. Then the relay goes on if it still has its
    lease, as a target may also do so after too long a pause; it stops if another instance can have taken over.
    """

    fenced = False


class TargetUnavailable(TargetFailed):
    """The target of a relay cannot be reached now: the relay tries again, from its checkpoint.

    If `at_once` is true, it does so without a pause, as the target will go about it in another way.
    """

    at_once = False


class EventRefused(EsxError):
    """The target of a relay will never take an event: too large, an unknown topic. `global_seq` is the event."""

    def __init__(self, global_seq: int, reason: str) -> None:
        self.global_seq = global_seq
        self.reason = reason
        super().__init__(f"event {global_seq} was refused: {visible(reason, limit=1000)}")


class UnknownConsumer(EsxError):
    """There is no consumer with that name. A consumer is known after its first run."""

    def __init__(self, name: str, kind: str = "consumer") -> None:
        self.name = name
        super().__init__(f"there is no {kind} {visible(name, limit=200)}: `esx consumers` lists them")


class UnknownProjection(UnknownConsumer):
    """There is no projection with that name. A projection is known after its first run."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "projection")


class HistoryChanged(EsxError):
    """The store no longer holds the events that a reader has read up to its position, so the reader stopped.

    `position` is the reader's position, `head` the store's highest global_seq, `reason` says how the histories differ.
    `erased` are the global_seq of events that were read and are gone from the same history; it is empty if the history
    is another one. `projection` is the reader's name if it is a projection, else None.
    """

    def __init__(
        self,
        position: int,
        head: int,
        reason: str,
        erased: tuple[int, ...] = (),
        consumer: str | None = None,
        kind: str = "projection",
    ) -> None:
        self.position = position
        self.head = head
        self.reason = reason
        self.erased = erased
        self.projection = consumer if kind == "projection" else None
        if consumer is None:
            who, remedy = "the reader", "begin again from the start, or from a position of this store"
        else:
            who = f"{kind} {visible(consumer, limit=200)}"
            again = "rebuilds it" if kind == "projection" else "sends all events again"
            remedy = f"reset_{kind} {again}, accept_history goes on at this position"
        super().__init__(f"{who} is at {position}, the store's head at {head}: {reason}; {remedy}")


class SchemaMissing(EsxError):
    """The database has no usable events table here. `elsewhere` are the names of other stores there.

    `of_others` says that there are stores of other tools, which cannot be read, or of which one has to be chosen.
    """

    elsewhere: tuple[str, ...] = ()
    of_others: bool = False


class StoreNotNamed(EsxError):
    """The name events finds a view or a foreign table: esx reads it only if the user names it."""


class OrderUnknown(EsxError):
    """No position can be proven safe, so there is no feed: on a logical subscriber, and on some views.

    `reason` says in one line why, and what to do.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class StoreUnavailable(EsxError):
    """The database cannot be reached or refused the connection, or the connection was lost.

    `refused` says that the server answers and refuses this user or password: another attempt alone does not help.
    `answered` says that the server runs, and that the reason is its answer, as for a database that does not exist.
    """

    refused: bool = False
    answered: bool = False


class StoreClosed(StoreUnavailable):
    """The store was used while or after it was closed."""


class OutcomeUnknown(StoreUnavailable):
    """The connection was lost or given up during an append, and it is not known whether the events were stored.

    With NO_STREAM or an exact version, repeating the append with the same events is safe.
    """


class QueryTimeout(EsxError):
    """A query took longer than the session's limit, and PostgreSQL ended it. The connection can still be used."""


class QueryGivenUp(QueryTimeout):
    """A query behind a connection pooler took longer than the statement timeout, and esx stopped waiting.

    There the client itself has to keep the limit. It is not known whether PostgreSQL ran the query; the connection is
    closed.
    """


class StoreFailed(EsxError):
    """PostgreSQL refused a statement for another reason than the caller's input."""


class OtherToolsConsumer(StoreFailed):
    """A consumer is that of another tool, whose store esx only reads."""

    def __init__(self, name: str, tool: str) -> None:
        self.name = name
        super().__init__(
            f"{visible(name, limit=200)} is a consumer of {tool}: esx only shows how far it is, "
            "and cannot pause, move or repair it"
        )


class QueryCancelled(StoreFailed):
    """A statement was cancelled: by a user, by recovery on a standby, or by PostgreSQL to end a deadlock.

    The statement changed nothing, and the connection can still be used. Feeds and projections go on by themselves, and
    appends are tried again for as long as after a lost connection. All other methods raise this error.
    """


class OwnerNotTrusted(StoreFailed):
    """Reading would run code of another user who has fewer rights than this user. Nothing was read.

    `owner` is that other user. `EventStore.connect(trust_owner=True)` allows it.
    """

    def __init__(self, message: str, owner: str) -> None:
        self.owner = owner
        super().__init__(message)


class NotAllowed(StoreFailed):
    """The user lacks a right, or the session is read-only."""

"""The event store: the only part of esx that speaks SQL."""

from esx.store.errors import (
    EsxError,
    EventIdsReused,
    InvalidEvent,
    InvalidQuery,
    OutcomeUnknown,
    SchemaMissing,
    StoreFailed,
    StoreUnavailable,
    WrongVersion,
)
from esx.store.model import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    AppendResult,
    Event,
    Expected,
    ExpectedVersion,
    JsonText,
    NewEvent,
    Strategy,
    StreamAppend,
    StreamSummary,
)
from esx.store.store import EventStore

__all__ = [
    "ANY",
    "NO_STREAM",
    "STREAM_EXISTS",
    "AppendResult",
    "EsxError",
    "Event",
    "EventIdsReused",
    "EventStore",
    "Expected",
    "ExpectedVersion",
    "InvalidEvent",
    "InvalidQuery",
    "JsonText",
    "NewEvent",
    "OutcomeUnknown",
    "SchemaMissing",
    "StoreFailed",
    "StoreUnavailable",
    "Strategy",
    "StreamAppend",
    "StreamSummary",
    "WrongVersion",
]

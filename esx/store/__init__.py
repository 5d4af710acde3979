"""The event store: the only part of esx that speaks SQL."""

from esx.store.bulk_import import Imported, ImportFailed
from esx.store.doctor.finding import Finding, Severity
from esx.store.errors import (
    EsxError,
    EventIdsReused,
    InvalidEvent,
    InvalidQuery,
    NotFound,
    OutcomeUnknown,
    ProjectionFailed,
    SchemaMissing,
    StoreFailed,
    StoreUnavailable,
    UnknownProjection,
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
    Notification,
    Strategy,
    StreamAppend,
    StreamSummary,
)
from esx.store.projection_table import ProjectionStatus
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
    "Finding",
    "ImportFailed",
    "Imported",
    "InvalidEvent",
    "InvalidQuery",
    "JsonText",
    "NewEvent",
    "NotFound",
    "Notification",
    "OutcomeUnknown",
    "ProjectionFailed",
    "ProjectionStatus",
    "SchemaMissing",
    "Severity",
    "StoreFailed",
    "StoreUnavailable",
    "Strategy",
    "StreamAppend",
    "StreamSummary",
    "UnknownProjection",
    "WrongVersion",
]

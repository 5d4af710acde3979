"""esx: a small asyncpg library for event stores in PostgreSQL, and the terminal tool on top of it.

The names below are the public library; they load on first use, so that ``esx --version`` stays instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from esx.moment import FarTime
    from esx.store.errors import (
        EsxError,
        EventIdsReused,
        HistoryChanged,
        InvalidEvent,
        NotAllowed,
        OrderUnknown,
        OutcomeUnknown,
        OwnerNotTrusted,
        ProjectionFailed,
        QueryCancelled,
        SchemaMissing,
        StoreFailed,
        StoreNotNamed,
        StoreUnavailable,
        UnknownProjection,
        UnreadableValue,
        WrongVersion,
    )
    from esx.store.model import (
        ANY,
        NO_STREAM,
        STREAM_EXISTS,
        AppendResult,
        Event,
        Expected,
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
    "FarTime",
    "HistoryChanged",
    "InvalidEvent",
    "JsonText",
    "NewEvent",
    "NotAllowed",
    "Notification",
    "OrderUnknown",
    "OutcomeUnknown",
    "OwnerNotTrusted",
    "ProjectionFailed",
    "ProjectionStatus",
    "QueryCancelled",
    "SchemaMissing",
    "StoreFailed",
    "StoreNotNamed",
    "StoreUnavailable",
    "Strategy",
    "StreamAppend",
    "StreamSummary",
    "UnknownProjection",
    "UnreadableValue",
    "WrongVersion",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        import esx.store

        return getattr(esx.store, name)
    raise AttributeError(f"module 'esx' has no attribute {name!r}")

"""The public names of the library, as `esx` offers them: the store, its values, and all errors that it raises."""

from esx.errors import (
    EsxError,
    EventIdsReused,
    EventRefused,
    HistoryChanged,
    InvalidEvent,
    InvalidQuery,
    NotAllowed,
    NotFound,
    OrderUnknown,
    OtherToolsConsumer,
    OutcomeUnknown,
    OwnerNotTrusted,
    ProjectionFailed,
    QueryCancelled,
    QueryGivenUp,
    QueryTimeout,
    RelayFailed,
    SchemaMissing,
    StoreClosed,
    StoreFailed,
    StoreNotNamed,
    StoreUnavailable,
    TargetFailed,
    TargetUnavailable,
    UnknownConsumer,
    UnknownProjection,
    UnreadableValue,
    WrongVersion,
)
from esx.eventstore import Connecting, EventStore
from esx.expected import ANY, NO_STREAM, STREAM_EXISTS, Expected, ExpectedVersion
from esx.filters import Filter, MetadataMatch, Pattern, StreamFilter
from esx.layouts.foreign.kind import EventColumns, StoreKind
from esx.layouts.foreign.own import OwnLayout
from esx.layouts.foreign.recognition import FoundStore, Lookalike
from esx.layouts.foreign.tables import StoreTable
from esx.model import (
    AppendResult,
    Event,
    EventPreview,
    JsonText,
    NewEvent,
    Notification,
    Strategy,
    StreamAppend,
    StreamSummary,
)
from esx.moment import FarTime
from esx.positions import Position
from esx.store.append.stream_lock import LockedStream
from esx.store.bulk.changes import Changes
from esx.store.bulk.chunks import ChunkBounds
from esx.store.bulk.copy import ImportedEvent, StreamTaken
from esx.store.bulk.erase import Mark, Marked, NotMarked
from esx.store.bulk.export import Export
from esx.store.bulk.faithful import StoreNotEmpty
from esx.store.bulk.import_ import Imported, ImportFailed
from esx.store.conflicts.conflict import ConflictPair, ConflictRecording, ConflictSurvey, RecordedConflict
from esx.store.consume.handler_transaction import BatchHandler, EventHandler
from esx.store.consume.others import ConsumerStatus, OtherConsumers
from esx.store.consume.put_aside import OnError, PutAside
from esx.store.consume.report import ConsumerReport, ConsumerState, ProjectionOwner, ProjectionStatus, Runner
from esx.store.feed.batch import Batch, Counts, FeedState, Gap, Missed, Writer
from esx.store.feed.comparison import Difference, DifferenceKind
from esx.store.feed.feed import Feed
from esx.store.feed.history import History
from esx.store.health import Health
from esx.store.operate.audit import AuditReport, RowDifference
from esx.store.operate.checking import CheckLevel, CheckLimits, CheckVerdict
from esx.store.operate.rebuild import RebuildProgress, Rebuilt
from esx.store.operate.skipping import Skippable
from esx.store.operate.stepping import RowBreak, RowChange, Stepper, StepTaken
from esx.store.overview.summary import Happened, WindowSummary
from esx.store.overview.types import EventMoment, TypeSummary, TypeSurvey
from esx.store.read.categories import CategoryPage, CategorySummary
from esx.store.read.estimates import Estimate
from esx.store.read.event_list import EventList
from esx.store.read.locate import Place
from esx.store.read.order_check import Doubt
from esx.store.read.pages import StoredId, StreamKey, StreamPage
from esx.store.read.scale import NameScale
from esx.store.relay.relay import RelayOnError, RelayProgress
from esx.store.relay.target import RelayIdentity, RelayTarget, TargetPosition
from esx.store.search.indexes import MemberIndex
from esx.store.search.jsonpath import JsonPath
from esx.store.search.plan import SearchLimits, SearchPlan
from esx.store.search.slices import Slice
from esx.store.server_activity import ServerActivity, ServerPlace
from esx.store.table_shape import TableShape
from esx.store.traffic.sample import SampledEvent, TrafficSample
from esx.store.trail.trail import Causation, FieldNames, Scan, Trail, TrailEvent, TrailNode

__all__ = [
    "ANY",
    "NO_STREAM",
    "STREAM_EXISTS",
    "AppendResult",
    "AuditReport",
    "Batch",
    "BatchHandler",
    "CategoryPage",
    "CategorySummary",
    "Causation",
    "Changes",
    "CheckLevel",
    "CheckLimits",
    "CheckVerdict",
    "ChunkBounds",
    "ConflictPair",
    "ConflictRecording",
    "ConflictSurvey",
    "Connecting",
    "ConsumerReport",
    "ConsumerState",
    "ConsumerStatus",
    "Counts",
    "Difference",
    "DifferenceKind",
    "Doubt",
    "Estimate",
    "EsxError",
    "Event",
    "EventColumns",
    "EventHandler",
    "EventIdsReused",
    "EventList",
    "EventMoment",
    "EventPreview",
    "EventRefused",
    "EventStore",
    "Expected",
    "ExpectedVersion",
    "Export",
    "FarTime",
    "Feed",
    "FeedState",
    "FieldNames",
    "Filter",
    "FoundStore",
    "Gap",
    "Happened",
    "Health",
    "History",
    "HistoryChanged",
    "ImportFailed",
    "Imported",
    "ImportedEvent",
    "InvalidEvent",
    "InvalidQuery",
    "JsonPath",
    "JsonText",
    "LockedStream",
    "Lookalike",
    "Mark",
    "Marked",
    "MemberIndex",
    "MetadataMatch",
    "Missed",
    "NameScale",
    "NewEvent",
    "NotAllowed",
    "NotFound",
    "NotMarked",
    "Notification",
    "OnError",
    "OrderUnknown",
    "OtherConsumers",
    "OtherToolsConsumer",
    "OutcomeUnknown",
    "OwnLayout",
    "OwnerNotTrusted",
    "Pattern",
    "Place",
    "Position",
    "ProjectionFailed",
    "ProjectionOwner",
    "ProjectionStatus",
    "PutAside",
    "QueryCancelled",
    "QueryGivenUp",
    "QueryTimeout",
    "RebuildProgress",
    "Rebuilt",
    "RecordedConflict",
    "RelayFailed",
    "RelayIdentity",
    "RelayOnError",
    "RelayProgress",
    "RelayTarget",
    "RowBreak",
    "RowChange",
    "RowDifference",
    "Runner",
    "SampledEvent",
    "Scan",
    "SchemaMissing",
    "SearchLimits",
    "SearchPlan",
    "ServerActivity",
    "ServerPlace",
    "Skippable",
    "Slice",
    "StepTaken",
    "Stepper",
    "StoreClosed",
    "StoreFailed",
    "StoreKind",
    "StoreNotEmpty",
    "StoreNotNamed",
    "StoreTable",
    "StoreUnavailable",
    "StoredId",
    "Strategy",
    "StreamAppend",
    "StreamFilter",
    "StreamKey",
    "StreamPage",
    "StreamSummary",
    "StreamTaken",
    "TableShape",
    "TargetFailed",
    "TargetPosition",
    "TargetUnavailable",
    "TrafficSample",
    "Trail",
    "TrailEvent",
    "TrailNode",
    "TypeSummary",
    "TypeSurvey",
    "UnknownConsumer",
    "UnknownProjection",
    "UnreadableValue",
    "WindowSummary",
    "Writer",
    "WrongVersion",
]

"""Axon Framework 4 (JDBC). Source: AxonFramework, AbstractEventTableFactory.java and EventSchema.java.

Tables of Axon 4 (JPA) have these names too where Hibernate names them itself. It draws numbers apart, as axon_jpa says.
"""

from esx.layouts.foreign.axon_tokens import GAPS, tokens
from esx.layouts.foreign.kind import Checkpoints, EventColumns, Reading, StoreKind, category_of_first, time_of
from esx.layouts.foreign.tables import StoreTables
from esx.layouts.stream_keys import as_uuid

CORRELATION, CAUSATION = ("traceId",), ("correlationId",)
"""Where the ids are in Axon's metadata: the messages that one request caused share the first."""


def _reading(tables: StoreTables) -> Reading:
    return Reading(
        EventColumns(
            global_seq="r.globalindex",
            stream_id="r.aggregateidentifier",
            stream_seq="r.sequencenumber",
            event_type="r.payloadtype",
            data=tables.events.payload("payload"),
            metadata=tables.events.payload("metadata"),
            created_at=time_of("r.timestamp"),
            event_id=as_uuid("r.eventidentifier"),
        ),
        identity="r.eventidentifier",
        joins=tables.events.large_objects("payload", "metadata"),
        category=category_of_first(tables.events, "aggregateidentifier", "sequencenumber", "type"),
    )


KIND = StoreKind(
    "axon_jdbc",
    "Axon Framework 4 (JDBC)",
    has=(
        "globalindex",
        "aggregateidentifier",
        "sequencenumber",
        "eventidentifier",
        "metadata",
        "payload",
        "payloadrevision",
        "payloadtype",
        "timestamp",
    ),
    reading=_reading,
    draws_apart=True,
    sequences=("domainevententry_seq", "domainevententry_globalindex_seq", "hibernate_sequence"),
    correlation=CORRELATION,
    causation=CAUSATION,
    checkpoints=(Checkpoints(("processorname", "segment", "token", "tokentype"), tokens),),
    checks=(GAPS,),
)

"""Axon Framework 5. Source: AxonFramework, AggregateEventEntry.java.

Hibernate draws a number by a statement before the insert. An event of no aggregate has neither stream nor number.
"""

from esx.layouts.foreign.axon_jdbc import CAUSATION, CORRELATION
from esx.layouts.foreign.axon_tokens import GAPS, tokens
from esx.layouts.foreign.kind import Checkpoints, EventColumns, Reading, StoreKind, category_of_first, time_of
from esx.layouts.foreign.tables import StoreTables
from esx.layouts.stream_keys import as_uuid


def _reading(tables: StoreTables) -> Reading:
    return Reading(
        EventColumns(
            global_seq="r.global_index",
            stream_id="r.aggregate_identifier",
            stream_seq="r.aggregate_sequence_number",
            event_type="r.type",
            data=tables.events.payload("payload"),
            metadata=tables.events.payload("metadata"),
            created_at=time_of("r.timestamp"),
            event_id=as_uuid("r.identifier"),
        ),
        identity="r.identifier",
        joins=tables.events.large_objects("payload", "metadata"),
        category=category_of_first(
            tables.events, "aggregate_identifier", "aggregate_sequence_number", "aggregate_type"
        ),
    )


KIND = StoreKind(
    "axon5",
    "Axon Framework 5",
    has=(
        "global_index",
        "aggregate_identifier",
        "aggregate_sequence_number",
        "aggregate_type",
        "identifier",
        "metadata",
        "payload",
        "timestamp",
        "type",
    ),
    reading=_reading,
    draws_apart=True,
    sequences=("aggregate-event-global-index-sequence",),
    correlation=CORRELATION,
    causation=CAUSATION,
    checkpoints=(Checkpoints(("processor_name", "segment", "token", "token_type"), tokens),),
    checks=(GAPS,),
)

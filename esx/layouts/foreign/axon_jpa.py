"""Axon Framework 4 (JPA). Source: AxonFramework, AbstractEventEntry.java.

Hibernate keeps payloads as large objects, unless they are mapped to bytea. It draws numbers by a statement before the
insert, in newer versions 50 at a time.
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
            stream_seq="r.sequence_number",
            event_type="r.payload_type",
            data=tables.events.payload("payload"),
            metadata=tables.events.payload("meta_data"),
            created_at=time_of("r.time_stamp"),
            event_id=as_uuid("r.event_identifier"),
        ),
        identity="r.event_identifier",
        joins=tables.events.large_objects("payload", "meta_data"),
        category=category_of_first(tables.events, "aggregate_identifier", "sequence_number", "type"),
    )


KIND = StoreKind(
    "axon_jpa",
    "Axon Framework 4 (JPA)",
    has=(
        "global_index",
        "aggregate_identifier",
        "sequence_number",
        "event_identifier",
        "meta_data",
        "payload",
        "payload_type",
        "time_stamp",
    ),
    reading=_reading,
    draws_apart=True,
    sequences=("domain_event_entry_seq", "domain_event_entry_global_index_seq", "hibernate_sequence"),
    correlation=CORRELATION,
    causation=CAUSATION,
    checkpoints=(Checkpoints(("processor_name", "segment", "token", "token_type"), tokens),),
    checks=(GAPS,),
)

"""eventually-rs. Source: get-eventually/eventually-rs, migrations/1_events.up.sql.

Events are bytes, in the encoding that the application has chosen. Their time is in the metadata only.
"""

from esx.layouts.foreign.kind import NO_ID, RELATIVE, UNNUMBERED, EventColumns, Reading, StoreKind
from esx.layouts.foreign.tables import StoreTables

_TIME = "r.metadata ->> 'Recorded-At'"
_VALID = f"pg_catalog.pg_input_is_valid({_TIME}, 'timestamptz')"
_MOMENT = f"CASE WHEN {_TIME} !~* '{RELATIVE}' AND {_VALID} THEN ({_TIME})::timestamptz END"


def _reading(tables: StoreTables) -> Reading:
    return Reading(
        EventColumns(
            global_seq=UNNUMBERED,
            stream_id="r.event_stream_id",
            stream_seq="r.version",
            event_type="r.type",
            data=tables.events.payload("event"),
            metadata=tables.events.payload("metadata"),
            created_at=_MOMENT,
            event_id=NO_ID,
        )
    )


KIND = StoreKind(
    "eventually_rs",
    "eventually-rs",
    has=("event_stream_id", "type", "version", "event", "metadata"),
    reading=_reading,
    first=1,
    unordered="it keeps no order among streams",
)

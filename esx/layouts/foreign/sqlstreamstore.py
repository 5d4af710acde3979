"""SqlStreamStore. Source: SQLStreamStore, PgSqlScripts/Tables.sql.

A stream has a number, which the table streams gives to its name. The first event of all has the number 0.
"""

from esx.layouts.foreign.kind import EventColumns, Names, Reading, StoreKind
from esx.layouts.foreign.tables import StoreTables
from esx.layouts.stream_keys import ID, Made


def _reading(tables: StoreTables) -> Reading:
    streams = tables.beside["streams"]
    return Reading(
        EventColumns(
            global_seq="r.position",
            stream_id="s.id_original",
            stream_seq="r.stream_version",
            event_type="r.type",
            data=tables.events.payload("json_data"),
            metadata=tables.events.payload("json_metadata"),
            created_at=tables.events.moment("created_utc"),
            event_id="r.message_id",
        ),
        joins=f"LEFT JOIN {streams.quoted} s ON s.id_internal = r.stream_id_internal",
        keys=Made(
            ("r.stream_id_internal",),
            (
                f"(SELECT k.id_internal FROM {streams.quoted} k WHERE k.id_original = {ID} "
                "ORDER BY k.id_internal LIMIT 1)",
            ),
        ),
        names=Names(streams, "id_original"),
    )


KIND = StoreKind(
    "sqlstreamstore",
    "SqlStreamStore",
    has=(
        "stream_id_internal",
        "stream_version",
        "position",
        "message_id",
        "created_utc",
        "type",
        "json_data",
        "json_metadata",
    ),
    beside={"streams": ("id", "id_original", "id_internal")},
    reading=_reading,
    global_first=0,
)

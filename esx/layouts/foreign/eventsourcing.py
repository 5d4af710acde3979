"""eventsourcing. Source: pyeventsourcing/eventsourcing, postgres.py.

The state of an event is JSON in bytes, compressed or encrypted if the application has chosen that. Its time is in the
state only, usually as its first member. A writer locks the table, so that numbers become visible in their order.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import cast

from esx.layouts.foreign.kind import (
    NO_ID,
    Checkpoints,
    EventColumns,
    Reading,
    StoreKind,
    category_of_first,
    time_of,
    uuid_or_text,
)
from esx.layouts.foreign.source import as_json, looked_into, shallow
from esx.layouts.foreign.tables import NO_METADATA, Packed, StoreTables
from esx.layouts.foreign.tracking import tracking
from esx.postgres.literals import literal

_FIRST = '^{"timestamp": ?(?:{"_type_": ?"datetime_iso", ?"_data_": ?)?"([^"]+)"'
_FIRST_BYTES = re.compile(_FIRST.encode())
_START = b'{"timestamp":{"_type_":"datetime_iso","_data_":"'
_USUAL = _START + b'0000-00-00T00:00:00.000000+00:00"'
"""How a state begins that the tool itself has written, with any digits."""
_USUAL_START = itemgetter(slice(len(_USUAL)))
_USUAL_TIME = itemgetter(slice(len(_START), len(_USUAL) - 1))
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_CLASS = "pg_catalog.regexp_replace(pg_catalog.regexp_replace({}, '^[^:]*:', ''), '[.][^.]*$', '')"
"""The aggregate's class: that around the event's in its topic, as in ``shop.domain:Account.Deposited``."""
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:")


def _member(state: Packed, expression: str) -> str:
    return f"(SELECT {looked_into('s.state', expression)} FROM (SELECT ({as_json(state)})::text AS state OFFSET 0) s)"


def _id(state: Packed, name: str) -> str:
    # An application can keep ids in its events. Most have none, which the bytes tell faster.
    there = f"pg_catalog.position({state.raw}, '\\x{name.encode().hex()}'::bytea) > 0"
    return f"CASE WHEN {there} THEN {_member(state, f's.state::jsonb ->> {literal(name)}')} END"


def _created_at(state: Packed) -> str:
    # The start tells nearly always, without fetching the whole of a large state.
    start = f"pg_catalog.encode(pg_catalog.substr({state.raw}, 1, 200), 'escape')"
    value = "s.state::jsonb"
    member = _member(state, f"coalesce({value} -> 'timestamp' ->> '_data_', {value} ->> 'timestamp')")
    whole = f"pg_catalog.encode({state.raw}, 'escape')"
    member = f"CASE WHEN {shallow(whole)} THEN {member} END"
    return time_of(f"coalesce(pg_catalog.substring({start}, '{_FIRST}'), {member})")


def moments_of(states: Sequence[bytes | None]) -> Sequence[datetime | None]:
    """Do as `_created_at` does: in a feed that would cost PostgreSQL ten times what reading the rows does."""
    given = cast("Sequence[bytes]", states)
    try:
        if b"".join(map(_USUAL_START, given)).translate(_DIGITS) == _USUAL * len(given):
            return list(map(datetime.fromisoformat, map(bytes.decode, map(_USUAL_TIME, given))))
    except (TypeError, ValueError):  # one is NULL, or no time
        pass
    return [None if state is None else one_moment(state) for state in states]


def one_moment(state: bytes) -> datetime | None:
    """Return the time of one event in UTC; None if its state has none."""
    found = _FIRST_BYTES.match(state)
    try:
        if found is not None:
            text = found[1].decode()
        elif rb"\u0000" in state:  # PostgreSQL does not look into such a state
            return None
        else:
            value = json.loads(state)["timestamp"]
            text = value["_data_"] if isinstance(value, dict) else value
        moment = datetime.fromisoformat(text) if _ISO.match(text) else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _reading(tables: StoreTables) -> Reading:
    stream_id, keys = uuid_or_text(tables.events, "originator_id")
    state = Packed("r.state", tables.events.columns["state"])
    return Reading(
        EventColumns(
            global_seq="r.notification_id",
            stream_id=stream_id,
            stream_seq="r.originator_version",
            event_type="r.topic",
            data=tables.events.payload("state"),
            metadata=NO_METADATA,
            created_at=_created_at(state),
            event_id=NO_ID,
        ),
        keys=keys,
        moments=moments_of if state.type == "bytea" else None,
        category=category_of_first(tables.events, "originator_id", "originator_version", "topic", _CLASS),
        correlation=_id(state, "correlation_id"),
        causation=_id(state, "causation_id"),
    )


KIND = StoreKind(
    "eventsourcing",
    "eventsourcing (Python)",
    has=("originator_id", "originator_version", "topic", "state", "notification_id"),
    reading=_reading,
    first=1,
    checkpoints=(Checkpoints(("application_name", "notification_id"), tracking),),
)

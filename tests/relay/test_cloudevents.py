"""Messages: what they hold for any event, and that times are written as they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esx import Event, RelayIdentity
from esx.errors import EventRefused
from esx.moment import FarTime
from esx.relay.cloudevents import MessageFormat, Messages

IDENTITY = RelayIdentity("r", 1, 2, "shop", "public.events")
START = datetime(2026, 11, 30, 23, 59, 59, 999_998, tzinfo=UTC)
EVENT = Event(7, "order-1", 3, "Placed", '{"n": 1}', None, START, UUID(int=5))


def made(event: Event) -> tuple[bytes, dict[str, str]]:
    value, headers = Messages(MessageFormat.CLOUDEVENTS, IDENTITY).make(event)
    return as_bytes(value), {name: as_bytes(text).decode() for name, text in headers.items()}


def as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


moments = st.one_of(
    st.integers(-3, 3).map(lambda each: START + timedelta(microseconds=each)),
    st.integers(-2_000_000, 2_000_000).map(lambda each: START + timedelta(microseconds=each)),
    st.datetimes(timezones=st.just(UTC)),
)


@given(st.lists(moments, min_size=1, max_size=12))
@example([START, START + timedelta(microseconds=2), START])
@example([datetime.min.replace(tzinfo=UTC)])
def test_times_that_follow_each_other_are_each_written_as_they_are(times: list[datetime]) -> None:
    make = Messages(MessageFormat.CLOUDEVENTS, IDENTITY).make
    for moment in times:
        assert make(EVENT._replace(created_at=moment))[1]["ce_time"] == f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z".zfill(27)


def test_a_message_has_what_the_event_has() -> None:
    value, headers = made(EVENT)
    assert value == b'{"n": 1}'
    assert headers == {
        "ce_specversion": "1.0",
        "ce_source": "esx://shop/public.events",
        "ce_id": "00000000-0000-0000-0000-000000000005",
        "ce_type": "Placed",
        "ce_sequence": "00000000000000000003",
        "ce_globalsequence": "7",
        "content-type": "application/json",
        "ce_subject": "order-1",
        "ce_time": "2026-11-30T23:59:59.999998Z",
    }
    metadata = '{"user": "Änn", "correlation_id": "c-ö", "causation_id": 4}'
    _, headers = made(EVENT._replace(metadata_json=metadata))
    assert headers["ce_metadata"] == metadata
    assert (headers["ce_correlationid"], headers["ce_causationid"]) == ("c-ö", "4")


def test_odd_events_are_messages_too() -> None:
    odd = EVENT._replace(
        stream_id="ö\udcff", event_type="Größe", data_json='{"ä": "\udcff"}', created_at=None, event_id=None
    )
    value, headers = made(odd)
    assert value.decode() == '{"ä": "�\\\\xff"}'
    assert (headers["ce_id"], headers["ce_type"], headers["ce_subject"]) == ("7", "Größe", "ö�\\xff")
    assert "ce_time" not in headers
    assert "ce_time" not in made(EVENT._replace(created_at=FarTime.of("infinity")))[1]
    local = EVENT._replace(created_at=START.astimezone(timezone(timedelta(hours=2))))
    assert made(local)[1]["ce_time"] == "2026-11-30T23:59:59.999998Z"
    with pytest.raises(EventRefused, match="it has no type"):
        made(EVENT._replace(event_type=""))

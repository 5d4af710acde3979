"""What the stores of the suite hold: known events, with all that is hard to keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from esx.model import Event

START = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
"""In many places an hour later the clocks go forward."""
DIGITS = '{"exact": 1.10, "large": 123456789012345678901234567890, "small": 0.0000000000000000000012345}'
"""PostgreSQL's own text of a jsonb: with every digit, which neither floats nor 64 bits hold."""
TEXTS = '{"": null, "deep": [[[{"a": []}]]], "text": "it\'s \\"quoted\\" \\\\ ünïcødé 🎉 \\u001b[31m"}'
HOT = "hot-1"
NAMES = (HOT, "order-1", "order-2", "order-10", "Order-1", "plain", "ünï-1", "a%_b", "it's {odd} \\ $1 %s", "")


def _event(number: int) -> Event:
    """Return the event with a number: two of three are in the hot stream, and the others in turn."""
    turn, left = divmod(number - 1, 3)
    stream = NAMES[1 + turn % (len(NAMES) - 1)] if left == 2 else HOT
    seq = turn * 2 + left if stream == HOT else turn // (len(NAMES) - 1)
    correlation = f'{{"correlation_id": "c-{number % 7}"}}' if number % 3 == 0 else None
    return Event(
        global_seq=number * 2,  # rolled-back appends have left gaps
        stream_id=stream,
        stream_seq=seq,
        event_type=("Rare" if number % 50 == 0 else "Usual"),
        data_json=(DIGITS, TEXTS, f'{{"n": {number}}}', '"text"', "null")[number % 5],
        metadata_json=correlation,
        created_at=START + timedelta(minutes=number, microseconds=number),
        event_id=UUID(int=number),
    )


def contents(count: int) -> list[Event]:
    """Return the first events of the store, in their order."""
    return [_event(number) for number in range(1, count + 1)]

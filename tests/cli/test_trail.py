from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from esx import EventStore, NewEvent
from tests.cli.support import esx, ndjson, one_line_error

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


async def test_a_trail_as_a_tree_and_as_ndjson(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    first, second, third, hostile = uuid4(), uuid4(), uuid4(), uuid4()
    for event_id, stream, event_type, cause in (
        (first, "order-1", "Placed", None),
        (second, "payment-1", "Requested", first),
        (third, "order-1", "Packed", first),
        (hostile, "mail\x1b[2J-1", "Sent\n", "\x9bnobody"),
    ):
        metadata = {"correlation_id": "c 1", **({} if cause is None else {"causation_id": str(cause)})}
        await store18.append(stream, [NewEvent(event_type, {"amount": 1.50}, metadata, event_id)])

    shown = esx("trail", "2", "-d", dsn18)
    assert shown.returncode == 0, shown.stderr
    assert "correlation_id c 1: 4 events of 3 streams" in shown.stderr
    tree = [line[25:] for line in shown.stdout.splitlines()]
    assert tree == [
        "● Placed      order-1@0",
        "├─ Requested  payment-1@0",
        "└─ Packed     order-1@1",
        "◌ Sent␊       mail␛[2J-1@0  (caused by \\u009bnobody, which is not among these)",
    ]
    assert [line[9] for line in shown.stdout.splitlines()] == [" ", "*", " ", " "]

    lines = ndjson(esx("trail", "c 1", "--json", "--limit", "3", "-d", dsn18).stdout)
    assert [(line["global_seq"], line["depth"], line["parent"], line["link"]) for line in lines] == [
        (1, 0, None, "root"),
        (2, 1, 1, "caused"),
        (3, 1, 1, "caused"),
    ]
    assert lines[1]["data"] == {"amount": 1.5}

    config = tmp_path / "config.toml"
    config.write_text('fields.correlation = "request"\n', encoding="utf-8")
    await store18.append(
        "call-1", [NewEvent("Called", {}, {"request": "r 1"}), NewEvent("Done", {}, {"request": "r 1"})]
    )
    named = esx("trail", "r 1", "--json", "-d", dsn18, ESX_CONFIG=str(config))
    assert [line["event_type"] for line in ndjson(named.stdout)] == ["Called", "Done"], named.stderr

    assert "9" in one_line_error(esx("trail", "99", "-d", dsn18), 1)
    assert "some" in one_line_error(esx("trail", "1", "--scan", "some", "-d", dsn18), 2)

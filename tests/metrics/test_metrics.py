"""The exporter: what a reader of OpenMetrics gets, with bounded labels, and also while the store is away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import asyncpg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from esx import EventStore, NewEvent
from esx.metrics.figures import Observer
from esx.metrics.server import MetricsFailed, run_exporter
from tests.cli.support import esx, one_line_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

_OPEN = {"Accept": "application/openmetrics-text; version=1.0.0"}
_DOCS = Path(__file__).parents[2] / "docs" / "metrics"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@contextlib.asynccontextmanager
async def exporting(observer: Observer, told: list[str]) -> AsyncIterator[str]:
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        run_exporter(
            observer,
            host="127.0.0.1",
            port=0,
            timeout=60.0,
            started=lambda _host, number: port.set_result(number),
            told=told.append,
            fresh=0.0,
        )
    )
    try:
        async with asyncio.timeout(120):
            yield f"http://127.0.0.1:{await port}/metrics"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def scraped(url: str) -> Samples:
    async with aiohttp.ClientSession() as session, session.get(url, headers=_OPEN) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        text = await answer.text()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def test_what_is_measured(store18: EventStore, dsn18: str) -> None:
    await store18.append("order-1", [NewEvent("T") for _ in range(3)])
    connection = await asyncpg.connect(dsn18)
    await connection.execute(
        "INSERT INTO consumers (name, position, paused) VALUES ('p', 1, true), (E'evil\"\\n# x', 3, false)"
    )
    async with exporting(Observer(store18), []) as url:
        first = await scraped(url)
        assert of(first, "esx_up") == 1
        assert (of(first, "esx_head"), of(first, "esx_safe_position")) == (3, 3)
        assert of(first, "esx_consumer_lag_events", consumer="p", kind="projection") == 2
        state = {"consumer": "p", "kind": "projection"}
        assert of(first, "esx_consumer_state", esx_consumer_state="paused", **state) == 1
        assert of(first, "esx_consumer_state", esx_consumer_state="active", **state) == 0
        assert of(first, "esx_consumer_lag_events", consumer='evil"␊# x', kind="projection") == 0
        assert of(first, "esx_doctor_findings", severity="ok") > 0
        assert not [name for name, _ in first if name == "esx_appends_total"]
        await store18.append("order-2", [NewEvent("T") for _ in range(2)])
        assert of(await scraped(url), "esx_appends_total", category="order") == 2
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('w', 0, 'T', '1')"
            )
            held = await scraped(url)
            assert of(held, "esx_writers") == 1
            assert of(held, "esx_feed_held_seconds") > 0
    await connection.close()


async def test_categories_and_consumers_are_bounded(store18: EventStore, dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("INSERT INTO consumers (name) SELECT 'c' || n FROM generate_series(1, 230) n")
    await connection.close()
    async with exporting(Observer(store18, categories=3, doctor_every=0), []) as url:
        await scraped(url)
        for n in range(9):
            await store18.append(f"category{n}-1", [NewEvent("T")])
        samples = await scraped(url)
    appends = {
        dict(labels)["category"]: value for (name, labels), value in samples.items() if name == "esx_appends_total"
    }
    assert len(appends) == 4
    assert (appends["other"], sum(appends.values())) == (6, 9)
    assert sum(name == "esx_consumer_lag_events" for name, _ in samples) == 200
    assert (of(samples, "esx_consumers"), of(samples, "esx_consumers_left_out")) == (230, 30)
    assert not [name for name, _ in samples if name == "esx_doctor_findings"]


async def test_a_store_that_cannot_be_read_is_down_and_said_once(empty_dsn18: str) -> None:
    told: list[str] = []
    async with EventStore.connect(empty_dsn18) as store, exporting(Observer(store), told) as url:
        for _ in range(2):
            samples = await scraped(url)
            assert of(samples, "esx_up") == 0
            assert {name for name, _ in samples} == {"esx_up", "esx_build"}
        await store.init()
        assert of(await scraped(url), "esx_up") == 1
    assert [text.split(":")[0] for text in told] == ["the store cannot be read", "the store can be read again"]


async def test_the_dashboard_and_the_alerts_ask_for_what_there_is(store18: EventStore, dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("INSERT INTO consumers (name) VALUES ('p')")
    await connection.close()
    async with exporting(Observer(store18), []) as url:
        await scraped(url)
        await store18.append("order-1", [NewEvent("T")])
        names = {name for name, _ in await scraped(url)}
    dashboard = (_DOCS / "dashboard.json").read_text()
    for text in ("\n".join(_expressions(json.loads(dashboard))), (_DOCS / "alerts.yml").read_text()):
        asked = set(re.findall(r"\besx_\w+", text))
        assert len(asked) > 5
        assert asked <= names


def _expressions(dashboard: dict[str, list[dict[str, list[dict[str, str]]]]]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


async def test_a_port_that_is_taken_is_one_line(store18: EventStore, dsn18: str) -> None:
    async with exporting(Observer(store18), []) as url:
        port = url.split(":")[2].split("/")[0]
        with pytest.raises(MetricsFailed, match="use another --port"):
            await run_exporter(
                Observer(store18),
                host="127.0.0.1",
                port=int(port),
                timeout=1.0,
                started=lambda *_: None,
                told=lambda _: None,
            )
        done = await asyncio.to_thread(esx, "metrics", "--port", port, "-d", dsn18)
        assert "cannot listen on 127.0.0.1" in one_line_error(done, 1)

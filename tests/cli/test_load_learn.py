"""`esx load learn`, and load tests that are like what it learned."""

from __future__ import annotations

import tomllib
from functools import partial
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from esx import EventStore, NewEvent
from esx.load.learn.profile import profile_text
from tests.capsule.made import line, make
from tests.cli.support import esx, ndjson, one_line_error
from tests.load.learn.traffic import HOURS, fill_history
from tests.loadtest.test_mix import profile

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Servers

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def history_dsn(servers: Servers) -> str:
    """A day that has the kinds of the history, with few of each."""
    return await servers.kept(18, "little_traffic", partial(fill_history, hours=[each // 40 for each in HOURS]))


async def test_what_was_appended_is_learned(dsn: str, store: EventStore) -> None:
    """On both versions of PostgreSQL, as it asks for the system columns of the table."""
    for number in range(20):
        await store.append(f"cart-{number % 5}", [NewEvent("ItemAdded"), NewEvent("Priced")])
    done = esx("load", "learn", "-d", dsn)
    assert done.returncode == 0, done.stderr
    [cart] = tomllib.loads(done.stdout)["categories"]
    assert (cart["name"], cart["births"], cart["events_per_append"]) == ("cart", 0.25, [[2, 1]])
    assert {each["name"]: each["share"] for each in cart["types"]} == {"ItemAdded": 0.5, "Priced": 0.5}


async def test_a_store_is_learned_into_a_file(history_dsn: str, dsn18: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    done = esx("load", "learn", "--from", "2026-08-03 00:00Z", "-o", str(path), "-d", history_dsn)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "3 categories" in done.stderr
    assert [each["name"] for each in tomllib.loads(path.read_text())["categories"]] == ["accounts", "orders", "stock"]
    assert "password" not in path.read_text()
    assert "is there already" in one_line_error(esx("load", "learn", "-o", str(path), "-d", history_dsn), 2)
    printed = esx("load", "learn", "--from", "2026-08-03 08:00Z", "-d", history_dsn)
    assert tomllib.loads(printed.stdout)["since"].hour == 8
    assert "name an earlier time" in one_line_error(esx("load", "learn", "--from", "2040-01-01", "-d", history_dsn), 1)
    assert "name an earlier time" in one_line_error(esx("load", "learn", "-d", dsn18), 1)


async def test_what_was_learned_is_sent(dsn18: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(profile_text(profile()))
    options = ("--times", "50", "--duration", "2s", "--record-conflicts", "on")
    done = esx("load", "--like", str(path), *options, "-d", dsn18)
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout
    assert "conflicts stay within" in done.stdout or "conflicts pass" in done.stdout
    async with EventStore.connect(dsn18, read_only=True) as store:
        types = {each.event_type: each for each in (await store.types()).types}
        assert set(types) >= {"Deposited", "A"}
        assert max(len(event.data_json) for event in await store.read_all_page(limit=1000)) > 300
        names = [stream.stream_id async for stream in store.streams()]
    # Streams that began in the run have numbers of their own.
    assert any(int(name.rpartition("-")[2]) >= 2**31 for name in names)
    # 50 times the busiest part, of 2 appends a second.
    [run] = [each for each in ndjson(esx("load", "runs", "--json").stdout) if each["options"]["like"] == str(path)]
    assert run["options"]["rate"] == 100


async def test_multiples_run_one_after_the_other(dsn18: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(profile_text(profile()))
    usual = ("load", "--like", str(path), "--duration", "1s", "-d", dsn18)
    done = esx(*usual, "--times", "5,10", "--most-conflicts", "1", "--most-latency", "60s")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[:3]] == ["times", "5", "10"]
    assert "latency stays within 60,000.0 ms for 99 of 100 commands up to 10 times the traffic" in done.stdout
    last = ndjson(esx(*usual, "--times", "5,10", "--json", "--most-latency", "1ms").stdout)[-1]
    assert (last["kind"], last["bounds"]["p99"]) == ("multiples", 1.0)
    assert last["passed"]["latency"] in (5, 10)


def test_wrong_use_is_one_line(dsn18: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(profile_text(profile()).replace("streams = 100", "streams = 0"))
    for arguments, message, code in (
        (("--like", str(path)), "streams is 0", 1),
        (("--like", "none.toml"), "cannot be read", 1),
        (("--times", "2"), "add --like FILE", 2),
        (("--times", "1,2"), "add --like FILE", 2),
        (("--times", "1,1"), "twice", 2),
        (("--times", "x"), "no list of multiples", 2),
        (("--most-conflicts", "nan"), "no share", 2),
        (("--most-conflicts", "0.1"), "only with --like FILE", 2),
        (("--most-latency", "5ms"), "only with --like FILE", 2),
        (("--replay", "none.esx", "--rate", "5"), "--rate and --replay exclude each other", 2),
    ):
        assert message in one_line_error(esx("load", *arguments, "-d", dsn18), code)


async def test_a_capsule_is_recorded_and_sent_again(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    for number in range(30):
        await store18.append(f"cart-{number % 7}", [NewEvent("ItemAdded", {"n": number}), NewEvent("Priced")])
    capsule = tmp_path / "incident.esx"
    assert esx("capsule", "record", "-o", str(capsule), "-d", dsn18).returncode == 0
    usual = ("load", "--replay", str(capsule), "--yes-write-to")
    refused = esx("load", "--replay", str(capsule), "-d", dsn18)
    assert "holds events that are not a load test's" in refused.stderr
    done = esx(*usual, refused.stderr.split()[-1], "--on-conflict", "retry", "--record-conflicts", "on", "-d", dsn18)
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout
    assert "rate" not in done.stdout
    async with EventStore.connect(dsn18, read_only=True) as reading:
        sent = [event async for event in reading.read_all(after=60)]
    assert len(sent) == 60
    assert sorted(event.data["n"] for event in sent if event.event_type == "ItemAdded") == list(range(30))
    assert len({event.stream_id for event in sent}) == 7


def test_a_capsule_takes_one_speed(dsn18: str, tmp_path: Path) -> None:
    capsule = make(tmp_path / "c.esx", [line(1)])
    assert "takes one" in one_line_error(esx("load", "--replay", str(capsule), "--times", "1,2", "-d", dsn18), 2)
    (tmp_path / "text").write_text("no capsule")
    assert "no capsule" in one_line_error(esx("load", "--replay", str(tmp_path / "text"), "-d", dsn18), 1)

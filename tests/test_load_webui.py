"""Locust's web UI with our form, tab, page and files: a real one, on loopback, asked by HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esx.load.model import ON_CONFLICT, run_prefix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esx.store import EventStore

_ROOT = Path(__file__).parents[1]


class WebUI:
    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    async def get(self, path: str, **form: Any) -> str:
        """Ask by GET, or with a form by POST."""

        def ask() -> str:
            data = urllib.parse.urlencode(form).encode() if form else None
            with urllib.request.urlopen(self._address + path, data, timeout=10) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(ask)

    async def json(self, path: str) -> Any:
        return json.loads(await self.get(path))


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    async with asyncio.timeout(seconds):
        while True:
            try:
                if found := await condition():
                    return found
            except (urllib.error.URLError, ConnectionError):
                pass
            await asyncio.sleep(0.1)


async def test_a_run_from_the_web_ui(dsn18: str, store18: EventStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py"),
        *("--web-host", "127.0.0.1", "--web-port", str(port)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env={**os.environ, "ESX_DSN": dsn18},
    )
    ui = WebUI(port)
    try:
        page = await until(lambda: ui.get("/"))
        found = re.search(r"window\.templateArgs = (.*)", page)
        assert found is not None
        known = json.loads(found.group(1))
        for option in ("streams", "zipf", "on_conflict", "rate", "subscribers", "warm_up", "max_appends"):
            assert option in known["extra_options"]
        assert known["extra_options"]["on_conflict"]["choices"] == list(ON_CONFLICT)
        for hidden in ("dsn", "yes_write_to", "stop_after"):
            assert hidden not in known["extra_options"], "whoever opens the page must not see or change it"
        assert known["extended_tabs"] == [{"title": "Conflicts", "key": "esx"}]
        assert await ui.json("/esx/series.json") == {"run": None, "series": [], "summary": None}

        form = {"user_count": 6, "spawn_rate": 6, "streams": 2, "on_conflict": "retry", "rate": "", "seed": ""}
        for run_id in ("one", "two"):
            assert json.loads(await ui.get("/swarm", **form, run_id=run_id))["success"]

            rows = await until(partial(figures, ui, run_id))
            assert tab_is_shown(known, rows)
            assert float(rows["conflicts of attempts"]["run"].rstrip("%")) > 0
            assert rows["goodput, appends/s"]["course"]
            series = (await ui.json("/esx/series.json"))["series"]
            assert series[0]["streams"][0].keys() == {"stream", "successes", "conflicts"}
            later = (await ui.json(f"/esx/series.json?after={series[-1]['elapsed']}"))["series"]
            assert all(line["elapsed"] > series[-1]["elapsed"] for line in later)
            await ui.get("/stop", x=1)
            summary = await until(lambda: ui.json("/esx/summary.json"))
            assert (summary["run"], summary["verdict"]) == (run_id, "pass")
            assert summary["stored"] == summary["successes"] == await store18.count_events(run_prefix(run_id))
        assert "<svg" in await ui.get("/esx")
        header, *lines = (await ui.get("/esx/series.csv")).splitlines()
        assert header.startswith("elapsed,users,goodput,conflict_rate")
        assert lines
    finally:
        process.terminate()
        _, said = await asyncio.wait_for(process.communicate(), 30)
    assert b"Traceback" not in said, said.decode()
    assert process.returncode == 0


async def figures(ui: WebUI, run_id: str) -> dict[str, dict[str, str]] | None:
    """Return the rows of the tab, once they tell of that run."""
    [tab] = (await ui.json("/stats/requests"))["extended_stats"]
    rows = {row["figure"]: row for row in tab["data"]}
    return rows if rows.get("run", {}).get("run") == run_id and rows["successes"]["run"] > "0" else None


def tab_is_shown(known: dict[str, Any], rows: dict[str, dict[str, str]]) -> bool:
    """Return whether the table that the page knows has a column for each field of our rows."""
    [table] = known["extended_tables"]
    return all(row.keys() == {column["key"] for column in table["structure"]} for row in rows.values())

"""Locust's web UI with our form, tab, page and files: a real one, on loopback, asked by HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.cookiejar
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

import psutil
import pytest

from esx.eventstore import EventStore
from esx.load.model import ON_CONFLICT, run_prefix
from tests.support.browser import browser, needs_browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from email.message import Message

    from tests.support.browser import Page

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]


class WebUI:
    """Asks as a browser does: with the cookie, once it has one."""

    def __init__(self, address: str) -> None:
        self.first = address
        self.address = address.partition("?")[0].rstrip("/")
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), urllib.request.ProxyHandler({})
        )

    async def enter(self) -> str:
        """Open the address that was printed."""
        return (await self.ask(self.first))[1]

    async def get(self, path: str, **form: Any) -> str:
        """Ask by GET, or with a form by POST."""
        status, text, _ = await self.ask(self.address + path, urllib.parse.urlencode(form).encode() if form else None)
        assert status == 200, text
        return text

    async def json(self, path: str) -> Any:
        return json.loads(await self.get(path))

    async def ask(
        self, address: str, data: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, str, Message]:
        """Return status, text and headers of the answer, whatever it is."""
        request = urllib.request.Request(
            address, data, {name.replace("_", "-"): value for name, value in headers.items()}, method=method
        )

        def ask() -> tuple[int, str, Message]:
            try:
                with self._opener.open(request, timeout=60) as answer:
                    return answer.status, answer.read().decode(), answer.headers
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode(), error.headers

        return await asyncio.to_thread(ask)


class Locust:
    """Locust with its web UI, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self.ui: WebUI

    async def address(self) -> None:
        assert self.process.stderr is not None
        async with asyncio.timeout(120):
            while line := (await self.process.stderr.readline()).decode():
                self.said += line
                if match := re.search(r"the web UI is at (\S+)", line):
                    self.ui = WebUI(match[1])
                    return
        raise AssertionError(self.said)


@contextlib.asynccontextmanager
async def locust(
    dsn: str | None, *options: str, file: str | Path = "loadtest/locustfile.py", **environ: str
) -> AsyncIterator[Locust]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", str(file), "--web-port", str(port), *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env={**os.environ, **({} if dsn is None else {"ESX_DSN": dsn}), **environ},
    )
    running = Locust(process)
    try:
        await running.address()
        await until(lambda: running.ui.ask(running.ui.address))
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
        _, said = await asyncio.wait_for(process.communicate(), 120)
        running.said += said.decode()
    assert "Traceback" not in running.said, running.said


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 120) -> Any:
    async with asyncio.timeout(seconds):
        while True:
            try:
                if found := await condition():
                    return found
            except (urllib.error.URLError, ConnectionError):
                pass
            await asyncio.sleep(0.1)


async def test_a_run_from_the_web_ui(dsn18: str, store18: EventStore) -> None:
    async with locust(dsn18) as running:
        ui = running.ui
        page = await ui.enter()
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
    assert running.process.returncode == 0


async def test_only_who_has_the_token_may_use_it(dsn18: str, tmp_path: Path) -> None:
    async with locust(dsn18, "--logfile", str(tmp_path / "log")) as running:
        ui = running.ui
        [listening] = [
            each.laddr for each in psutil.Process(running.process.pid).net_connections() if each.status == "LISTEN"
        ]
        assert listening.ip == "127.0.0.1", "nobody asked for more"
        page = "/assets/graph-light.png"
        paths = [
            "/",
            page,
            "/nothing",
            "/esx",
            "/esx/series.json",
            "/stats/requests",
            "/logs",
            "/login",
            "/exceptions/csv",
        ]
        for path in paths:
            assert (await ui.ask(ui.address + path))[0] == 403, path
            assert (await ui.ask(f"{ui.address}{path}?token=wrong"))[0] == 403, path
        for path in ("/swarm", "/stop", "/stats/reset", "/user"):
            assert (await ui.ask(ui.address + path, b"user_count=1&spawn_rate=1"))[0] == 403, path
            assert (await ui.ask(ui.address + path, method="OPTIONS", Origin="http://evil.example"))[0] == 403, path
        # With the cookie: other sites' pages, and names that lead here by a trick, have it too, or would like to.
        assert "window.templateArgs" in await ui.enter()
        for name, value in (
            ("Origin", "http://evil.example"),
            ("Origin", "http://127.0.0.1:1"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
            ("Host", "evil.example"),
        ):
            for path in ("/swarm", "/stop"):
                status, text, _ = await ui.ask(ui.address + path, b"user_count=1&spawn_rate=1", None, **{name: value})
                assert status == 403, (name, value, text)
            assert (await ui.ask(f"{ui.address}/esx/series.json", None, None, **{name: value}))[0] == 403, (name, value)
        status, text, headers = await ui.ask(f"{ui.address}/logs", Origin=ui.address)
        assert status == 200
        assert headers["Referrer-Policy"] == "same-origin"
        assert not [name for name in headers if name.lower().startswith("access-control-")]
        assert (await ui.json("/stats/requests"))["state"] == "ready", "no test has been started"
        token = ui.first.partition("token=")[2]
        assert len(token) >= 32
        assert token not in text
        assert token not in (tmp_path / "log").read_text()
        raw = http.client.HTTPConnection("127.0.0.1", listening.port)
        await asyncio.to_thread(raw.request, "GET", f"/?token={token}")
        answer = raw.getresponse()
        raw.close()
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        assert {"HttpOnly", "SameSite=Strict"} <= set(answer.headers["Set-Cookie"].split("; "))


async def test_a_form_sets_what_it_shows_and_nothing_else(dsn18: str, empty_dsn18: str) -> None:
    async with EventStore.connect(empty_dsn18) as other:
        await other.init()
        async with locust(dsn18) as running:
            ui = running.ui
            await ui.enter()
            form = {"user_count": 1, "spawn_rate": 1, "streams": 1, "run_time": "1s"}
            for name, value in (
                ("dsn", empty_dsn18),
                ("yes_write_to", "localhost/x"),
                ("append_sql", "/tmp/x"),
                ("store", "x"),
                ("stop_after", "1"),
                ("progress_ndjson", "true"),
                ("processes", "9"),
                ("master_host", "evil.example"),
                ("csv_prefix", "/tmp/x"),
                ("html_file", "/tmp/x"),
                ("num_users", "1"),
                ("no_such_option", "1"),
                ("dsn ", "1"),
            ):
                status, text, _ = await ui.ask(
                    f"{ui.address}/swarm", urllib.parse.urlencode({**form, name: value}).encode()
                )
                assert (status, name.strip() in text) == (400, True), (name, text)
            settings: Any
            for settings in (
                {"user_class_name": "StreamWriter", "bridge": 1},
                [],
                {"user_class_name": "x", "dsn": "y"},
            ):
                status, text, _ = await ui.ask(f"{ui.address}/user", json.dumps(settings).encode())
                assert status == 400, text
            assert (await ui.json("/stats/requests"))["state"] == "ready"
            status, text, _ = await ui.ask(
                f"{ui.address}/swarm?dsn={empty_dsn18}", urllib.parse.urlencode(form).encode()
            )
            assert (status, json.loads(text)["success"]) == (200, True)
            await until(lambda: ui.json("/esx/summary.json"))
        assert await other.count_events("load-") == 0
    async with EventStore.connect(dsn18) as store:
        assert await store.count_events("load-") > 0


@needs_browser
async def test_the_page_works_in_a_browser(dsn18: str, tmp_path: Path) -> None:
    file = tmp_path / "locustfile.py"
    file.write_text(_WITH_LOGIN)
    async with locust(dsn18, "--web-login", file=file) as running, browser() as chromium:
        ui = running.ui
        page = await chromium.open(ui.first)

        async def shows(expression: str) -> Any:
            return await until(lambda: page.evaluate(expression))

        # A form of the page itself, as that for a login is; then what the page does by scripts.
        await shows("location.pathname == '/login' && !location.search.includes('token')")
        await page.evaluate(
            "document.body.innerHTML = '<form id=f method=post action=/enter></form>'; document.forms.f.submit()"
        )
        await shows("location.pathname == '/' && window.templateArgs !== undefined")
        await page.evaluate(
            "fetch('swarm', {method: 'POST', body: new URLSearchParams("
            "{user_count: 1, spawn_rate: 1, run_id: 'clicked'})})"
            ".then(answer => answer.json()).then(said => window.said = said)"
        )
        assert await shows("window.said && window.said.success")
        await until(partial(figures_in, page))
        assert running.ui.first.partition("token=")[2] not in await page.evaluate("document.cookie + location.href")


async def figures_in(page: Page) -> Any:
    """Return whether the page has been given the figures of the run."""
    await page.evaluate("fetch('esx/series.json').then(answer => answer.json()).then(said => window.figures = said)")
    return await page.evaluate("window.figures && window.figures.run == 'clicked'")


async def test_beyond_loopback_it_says_what_that_means() -> None:
    nowhere = "postgresql://127.0.0.1:1/x"
    options = ("--master", "--master-bind-port", "0", "--web-host", "0.0.0.0", "--master-bind-host", "127.0.0.1")
    async with locust(None, *options, DATABASE_URL="", LOCUST_WEB_HOST="") as running:
        ui = running.ui
        assert "warning: --web-host lets other machines in" in running.said
        assert "--master-bind-host" not in running.said
        assert (await ui.ask(f"{ui.address}/"))[0] == 403
        await ui.enter()
        assert (await ui.ask(f"{ui.address}/", Host="evil.example"))[0] == 403
    assert nowhere not in running.said


async def test_an_empty_variable_asks_for_nothing_and_workers_come_from_this_machine() -> None:
    async with locust(None, "--master", LOCUST_WEB_HOST="", LOCUST_MASTER_BIND_PORT="55571") as running:
        addresses = {
            each.laddr.ip for each in psutil.Process(running.process.pid).net_connections() if each.status == "LISTEN"
        }
        assert addresses == {"127.0.0.1"}
        assert "warning" not in running.said


async def test_a_login_page_of_ones_own_still_works(dsn18: str, tmp_path: Path) -> None:
    file = tmp_path / "locustfile.py"
    file.write_text(_WITH_LOGIN)
    async with locust(dsn18, "--web-login", file=file) as running:
        ui = running.ui
        assert (await ui.ask(f"{ui.address}/login"))[0] == 403
        assert "window.templateArgs" not in await ui.enter()
        assert "window.templateArgs" in await ui.get("/enter", name="ann")


_WITH_LOGIN = """
from flask import redirect
from flask_login import UserMixin, login_user
from locust import events
from esx.loadtest.locustfile import StreamWriter

class Person(UserMixin):
    id = "ann"

@events.init.add_listener
def init(environment, **_):
    if environment.web_ui:
        app = environment.web_ui.app
        app.secret_key = "for this test"
        environment.web_ui.login_manager.user_loader(lambda name: Person())
        @app.route("/enter", methods=["POST"])
        def enter():
            login_user(Person())
            return redirect("/")
"""


async def figures(ui: WebUI, run_id: str) -> dict[str, dict[str, str]] | None:
    """Return the rows of the tab, once they tell of that run."""
    [tab] = (await ui.json("/stats/requests"))["extended_stats"]
    rows = {row["figure"]: row for row in tab["data"]}
    return rows if rows.get("run", {}).get("run") == run_id and rows["successes"]["run"] > "0" else None


def tab_is_shown(known: dict[str, Any], rows: dict[str, dict[str, str]]) -> bool:
    """Return whether the table that the page knows has a column for each field of our rows."""
    [table] = known["extended_tables"]
    return all(row.keys() == {column["key"] for column in table["structure"]} for row in rows.values())


_INTRUDER = """
import sys
from locust import __version__
from locust.rpc import Message, zmqrpc
client = zmqrpc.Client("127.0.0.1", int(sys.argv[1]), "intruder")
client.send(Message("client_ready", __version__, "intruder"))
while True:
    message = client.recv()
    if message.type == "spawn":
        print(message.data["parsed_options"])
        break
"""


async def test_forked_workers_are_not_told_the_database(dsn18: str) -> None:
    """They know it, and others on this machine can call themselves workers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "-u", "2", "-t", "600s"),
        *("--processes", "1", "--master-bind-port", port, "--master-port", port),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=_ROOT,
        env={**os.environ, "ESX_DSN": f"{dsn18}&password=hunter2"},
    )
    try:
        # It is told, whether it comes before the run begins or later.
        intruder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _INTRUDER, port), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        told, _ = await asyncio.wait_for(intruder.communicate(), 120)
        assert b"streams" in told
        assert b"hunter2" not in told
    finally:
        process.kill()
        await process.communicate()

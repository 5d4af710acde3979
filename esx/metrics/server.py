"""The exporter: an HTTP server with one page, /metrics."""

import asyncio
import contextlib
from collections.abc import Callable

from aiohttp import web

from esx.errors import EsxError
from esx.metrics.exposition import expose
from esx.metrics.figures import Measured, Observer

FRESH = 1.0
"""For how many seconds an answer serves others who ask."""


class MetricsFailed(EsxError):
    """The exporter could not start. The message is one line with the remedy."""


class Exporter:
    """Answers with what an observer measures. Those who ask at the same time share one measurement."""

    def __init__(self, observer: Observer, *, timeout: float, fresh: float, told: Callable[[str], object]) -> None:
        self._observer = observer
        self._timeout = timeout
        self._fresh = fresh
        self._told = told
        self._lock = asyncio.Lock()
        self._measured_at: float | None = None
        self._figures: Measured | None = None
        self._failing: str | None = None

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request with the metrics; with esx_up 0 where the store cannot be read."""
        accept = request.headers.get("Accept", "")
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._measured_at is None or now - self._measured_at >= self._fresh:
                self._figures = await self._measure()
                self._measured_at = asyncio.get_running_loop().time()
            body, content_type = expose(self._figures, accept)
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    async def _measure(self) -> Measured | None:
        try:
            async with asyncio.timeout(self._timeout):
                figures = await self._observer.measure()
        except (EsxError, TimeoutError) as error:
            reason = str(error) or f"no answer within {self._timeout:g} s"
            if reason != self._failing:
                self._told(f"the store cannot be read: {reason}")
            self._failing = reason
            return None
        if self._failing is not None:
            self._told("the store can be read again")
        self._failing = None
        return figures


async def run_exporter(
    observer: Observer,
    *,
    host: str,
    port: int,
    timeout: float,
    started: Callable[[str, int], object],
    told: Callable[[str], object],
    fresh: float = FRESH,
) -> None:
    """Serve until it is cancelled; `started` gets the address and the port. Raises MetricsFailed.

    A measurement may take `timeout` seconds, and serves others who ask for `fresh` seconds.
    """
    exporter = Exporter(observer, timeout=timeout, fresh=fresh, told=told)
    app = web.Application(client_max_size=1024)
    app.router.add_get("/metrics", exporter.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            raise MetricsFailed(
                f"cannot listen on {host} port {port}: {error}; use another --port or --host"
            ) from error
        started(host, runner.addresses[0][1])
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    finally:
        await runner.cleanup()

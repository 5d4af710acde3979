"""Load-test an event store: users read a stream's version, decide, and append at it.

    locust -f loadtest/locustfile.py                              # with the web UI
    locust -f loadtest/locustfile.py --headless -u 20 -t 20s      # without

A stream that has moved on meanwhile refuses the append: a conflict, which is an outcome and not a failure. Locust's
tables show successes as "append" (with errors as its failures) and conflicts as "append (conflict)". Events go to
streams of the run's own, ``load-<run id>-<n>``.
"""

# Locust's own types leave listeners out, and know no async tasks.
# mypy: disable-error-code="untyped-decorator, type-var, override"
from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any

import gevent
from locust import constant, events, task
from locust.exception import StopTest
from locust.runners import MasterRunner, WorkerRunner

from esx.database import choose
from esx.load.errors import LoadFailed
from esx.load.model import LoadProgress, LoadSummary, run_prefix
from esx.store import NO_STREAM, EsxError, EventStore, JsonText, NewEvent, OutcomeUnknown, WrongVersion
from loadtest.protocol import Protocol
from loadtest.settings import Settings, add_options, new_run_id, own_dsn, settings_of
from loadtest.stats import Collector
from loadtest.user import AsyncUser

if TYPE_CHECKING:
    from locust.argument_parser import LocustArgumentParser
    from locust.env import Environment
    from locust.runners import Runner

_COLLECT_EVERY = 0.25
_FINISH_WITHIN = 10.0  # seconds for the appends in flight at the end; cut off, their outcome would be unknown
_AFTER_FAILURE = (0.2, 1.0)
_MOST_CONNECTIONS = 10_000  # opened as users need them, one each


class Run:
    """One load test in this process, from test_start to test_stop."""

    def __init__(self, run: str, settings: Settings, environment: Environment) -> None:
        self.id = run
        self.settings = settings
        self.prefix = run_prefix(run)
        self.collector = Collector(run, environment.stats)
        self.store: EventStore | None = None  # a master has none
        self.began = time.perf_counter()
        self.ended: float | None = None
        self.users = 0
        self._numbers = itertools.count()
        self._environment = environment
        self._greenlets: list[Any] = []

    def open(self) -> None:
        """Connect; raises EsxError."""
        self.store = AsyncUser.bridge.run(_open(self.settings.dsn))
        self.began = time.perf_counter()

    def spawn(self, *greenlets: Any) -> None:
        """Keep greenlets that are to end with the run."""
        self._greenlets.extend(greenlets)

    def close(self) -> None:
        """End the run: every user has stopped."""
        self.ended = time.perf_counter()
        gevent.killall([greenlet for greenlet in self._greenlets if greenlet is not gevent.getcurrent()], block=False)
        self.collector.collect()
        store, self.store = self.store, None
        if store is not None:
            AsyncUser.bridge.run(store.close())

    @property
    def elapsed(self) -> float:
        """Seconds since the users could begin, up to the end."""
        return (self.ended or time.perf_counter()) - self.began

    def draw(self) -> tuple[int, random.Random]:
        """Return the next user's number and its own source of randomness."""
        number = next(self._numbers)
        seed = self.settings.load.seed
        if seed is None:
            return number, random.Random()  # noqa: S311 - picks streams, keeps no secrets
        # Workers draw apart from each other, and the same in every run.
        worker = getattr(self._environment.runner, "worker_index", 0)
        return number, random.Random(f"{seed}/{worker}/{number}")  # noqa: S311


class StreamWriter(AsyncUser):
    """Reads the version of a stream and appends one event at it, again and again."""

    wait_time = constant(0)

    async def on_start(self) -> None:
        """Take part in the run."""
        assert state.run is not None
        assert state.run.store is not None
        self.store = state.run.store
        self.outcomes = state.run.collector.outcomes
        self.prefix = state.run.prefix
        self.settings = state.run.settings.load
        number, self.random = state.run.draw()
        self.metadata = JsonText(f'{{"run_id":"{state.run.id}","user_id":"writer-{number}"}}')
        self.appends = 0

    @task
    async def append(self) -> None:
        """Read, decide, append."""
        stream = self._pick_stream()
        began = time.perf_counter_ns()
        try:
            version = await self.store.version(stream)
        except EsxError as error:
            self.outcomes.error(time.perf_counter_ns() - began, str(error))
            await self.pause(self.random.uniform(*_AFTER_FAILURE))
            return
        self.appends += 1
        event = NewEvent("LoadTested", JsonText(f'{{"n":{self.appends}}}'), self.metadata)
        began = time.perf_counter_ns()
        try:
            await self.store.append(stream, [event], expected=NO_STREAM if version < 0 else version)
        except WrongVersion:
            self.outcomes.conflict(time.perf_counter_ns() - began)
        except OutcomeUnknown as error:
            # The connection is gone; whether the append had been committed is not known.
            self.outcomes.unknown(time.perf_counter_ns() - began, str(error))
            await self.pause(self.random.uniform(*_AFTER_FAILURE))
        except EsxError as error:
            self.outcomes.error(time.perf_counter_ns() - began, str(error))
            await self.pause(self.random.uniform(*_AFTER_FAILURE))
        except (Exception, asyncio.CancelledError) as error:
            self.outcomes.unknown(time.perf_counter_ns() - began, f"cut off: {error!r}")
            raise
        else:
            self.outcomes.success(time.perf_counter_ns() - began)

    def _pick_stream(self) -> str:
        settings, draw = self.settings, self.random.random
        hot, streams = settings.hot_streams, settings.streams
        if hot and (hot == streams or draw() < settings.hot_share):
            return f"{self.prefix}{int(draw() * hot)}"
        return f"{self.prefix}{hot + int(draw() * (streams - hot))}"


class State:
    """What this process knows between Locust's events."""

    run: Run | None = None
    protocol: Protocol | None = None
    failure: str | None = None
    own_dsn: str | None = None


state = State()


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    add_options(parser)


@events.init.add_listener
def _init(environment: Environment, runner: Runner, **_: Any) -> None:
    options = environment.parsed_options
    assert options is not None
    if options.progress_ndjson and not isinstance(runner, WorkerRunner):
        state.protocol = Protocol()
    # Greenlets that collect figures must not hold the event loop up for the usual 5 ms: it would show in latencies.
    sys.setswitchinterval(0.0005)
    # Users finish the append in progress, unless told otherwise.
    environment.stop_timeout = environment.stop_timeout or _FINISH_WITHIN
    state.own_dsn = own_dsn(options)
    try:
        settings = settings_of(options)
        if not isinstance(runner, MasterRunner | WorkerRunner) or options.processes or settings.dsn:
            AsyncUser.bridge.run(_check(settings.dsn))
    except EsxError as error:
        if state.protocol is not None:
            state.protocol.error(str(error))
        sys.exit(f"esx: {error}")


@events.test_start.add_listener
def _test_start(environment: Environment, **_: Any) -> None:
    options, runner = environment.parsed_options, environment.runner
    assert options is not None
    assert runner is not None
    state.run = None
    if isinstance(runner, WorkerRunner):
        # The master's options have just been laid over ours.
        options.dsn = state.own_dsn or options.dsn
    try:
        settings = settings_of(options)
        if not isinstance(runner, WorkerRunner):
            options.esx_run = settings.load.run_id or new_run_id()
        run = Run(options.esx_run, settings, environment)
        if not isinstance(runner, MasterRunner):
            run.open()
    except EsxError as error:
        state.failure = str(error)
        environment.process_exit_code = 1
        raise StopTest(f"esx: {error}") from None
    state.run = run
    run.spawn(gevent.spawn(_collect, run))
    if state.protocol is not None:
        run.spawn(gevent.spawn(_progress, run, runner, state.protocol))
        state.protocol.on_end(runner.quit)
    if options.stop_after and not isinstance(runner, WorkerRunner):
        run.spawn(gevent.spawn_later(options.stop_after, runner.quit))


@events.test_stopping.add_listener
def _test_stopping(environment: Environment, **_: Any) -> None:
    if state.run is not None and environment.runner is not None:
        state.run.users = environment.runner.user_count


@events.test_stop.add_listener
def _test_stop(**_: Any) -> None:
    if state.run is not None and state.run.ended is None:
        state.run.close()


@events.report_to_master.add_listener
def _report(data: dict[str, Any], **_: Any) -> None:
    # Registered before Locust's own listener, which takes the statistics that `collect` fills.
    if state.run is not None:
        state.run.collector.collect()
        state.run.collector.report(data)


@events.worker_report.add_listener
def _worker_report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    if state.run is not None:
        state.run.collector.take_report(client_id, data)


@events.quit.add_listener
def _quit(**_: Any) -> None:
    if state.protocol is not None:
        if state.run is None:
            state.protocol.error(state.failure or "the load test ended before it began")
        else:
            state.protocol.write(_summary(state.run))
    AsyncUser.bridge.stop()


def _collect(run: Run) -> None:
    while True:
        gevent.sleep(_COLLECT_EVERY)
        run.collector.collect()


def _progress(run: Run, runner: Runner, protocol: Protocol) -> None:
    last = 0.0
    while True:
        gevent.sleep(1.0 - run.elapsed % 1.0)
        now, users = run.elapsed, runner.user_count
        recent, total = run.collector.recent(), run.collector.total()
        counts, percentiles = recent.counts, recent.percentiles()
        protocol.write(
            LoadProgress(
                elapsed=now,
                users=users,
                total=total.counts,
                goodput=counts.successes / (now - last),
                conflict_rate=counts.conflicts / (counts.attempts or 1),
                p50_ms=percentiles["p50"],
                p95_ms=percentiles["p95"],
                p99_ms=percentiles["p99"],
                last_error=total.last_error,
            )
        )
        last = now


def _summary(run: Run) -> LoadSummary:
    total = run.collector.total()
    counts = total.counts
    return LoadSummary(
        run=run.id,
        elapsed=run.elapsed,
        users=run.users,
        total=counts,
        goodput=counts.successes / run.elapsed,
        conflict_rate=counts.conflicts / (counts.attempts or 1),
        percentiles=total.percentiles(),
        last_error=total.last_error,
    )


async def _open(dsn: str | None) -> EventStore:
    if dsn is None and choose(None, os.environ).embedded:
        raise LoadFailed("no database is named: set ESX_DSN or pass --dsn; `esx load` takes the embedded one by itself")
    store: EventStore = await EventStore.connect(dsn, max_connections=_MOST_CONNECTIONS, application_name="esx load")
    try:
        await store.version("load")  # raises SchemaMissing where there is no events table
    except BaseException:
        await store.close()
        raise
    return store


async def _check(dsn: str | None) -> None:
    await (await _open(dsn)).close()

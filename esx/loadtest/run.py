"""One load test in this process, from test_start to its verdict."""

import contextlib
import itertools
import logging
import os
import platform
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import gevent
import locust
from locust.env import Environment

from esx import __version__
from esx.config import load as load_config
from esx.database_choice import choose
from esx.errors import EsxError, OrderUnknown
from esx.eventstore import EventStore
from esx.load.appending import described, open_appender
from esx.load.collisions import collisions
from esx.load.errors import LoadFailed
from esx.load.ledger import Ledger
from esx.load.model import DatabaseFigures, LoadProgress, LoadSummary, PairCounts, StreamCounts, run_prefix
from esx.load.safety import check_may_write
from esx.load.verdict import Findings, conclude, examine
from esx.loadtest.followers import Followers
from esx.loadtest.outcomes import RESPONSE, TIME_TO_SUCCESS
from esx.loadtest.settings import Settings
from esx.loadtest.stats import Collector
from esx.loadtest.user import AsyncUser
from esx.loadtest.writer import Workshop
from esx.model import Notification
from esx.store.server_activity import ServerActivity

APPLICATION_NAME = "esx load"
_SATURATED = 0.9
_MOST_CONNECTIONS = 10_000  # opened as users need them, one each
_SERIES = 3600  # progress lines kept for the web UI
_TOP_STREAMS = 100

log = logging.getLogger(__name__)


class RunningTest:
    """A run in one process. A master has no workshop, a worker no watch."""

    def __init__(self, run: str, settings: Settings, environment: Environment) -> None:
        self.id = run
        self.settings = settings
        self.options = settings.load
        self.prefix = run_prefix(run)
        self.collector = Collector(run, environment.stats)
        self.workshop: Workshop | None = None
        self.watch: DatabaseWatch | None = None
        self.followers: Followers | None = None
        self.environment: dict[str, str] = {}
        self.users = 0
        self.series: deque[LoadProgress] = deque(maxlen=_SERIES)
        self.summary: LoadSummary | None = None
        self.missing_workers: list[str] = []
        self.ended: float | None = None
        """When the last user had stopped, on the clock of `time.perf_counter`."""
        self.judging: Any = None
        self.ledgers: dict[str, Ledger] = {}
        """The ledgers of the workers that have ended, by worker."""
        self._began = time.perf_counter()
        self._numbers = itertools.count()
        self._greenlets: list[Any] = []
        self._last_line = 0.0

    # -- beginning ---------------------------------------------------------------------------------------------

    def open_workshop(self, *, index: int = 0, workers: int = 1) -> None:
        """Connect the writers of this process, number `index` of `workers`. Raises EsxError."""
        if (self.options.like or self.options.replay) and workers > 1:
            raise LoadFailed(
                "--like and --replay are for one process, whose writers share streams: leave the other workers out"
            )
        store = AsyncUser.bridge.run(open_store(self.settings, writes=True))
        appender = AsyncUser.bridge.run(open_appender(store, self.options))
        most, rest = divmod(self.options.max_appends, workers)
        self.workshop = Workshop(store, self.id, self.options, self.collector.outcomes, most + (index < rest), appender)
        self._worker_index = index

    def open_watch(self) -> None:
        """Connect the watch of the database, and let the subscribers follow. Raises EsxError."""
        self.watch = DatabaseWatch(AsyncUser.bridge.run(open_store(self.settings)))
        if AsyncUser.bridge.run(_is_used(self.watch.store, self.prefix)):
            raise LoadFailed(f"--run-id is {self.id}, but there is a run of that name already: use another one")
        self.environment = {
            "esx": __version__,
            "postgresql": self.watch.server_version,
            "python": platform.python_version(),
            "locust": locust.__version__,
            "platform": platform.platform(),
            "cpus": str(os.cpu_count()),
            **described(AsyncUser.bridge.run(open_appender(self.watch.store, self.options))),
        }
        if self.options.subscribers:
            self.followers = Followers(self.settings, self.prefix)

    def begin(self) -> None:
        """Start the clock: users can begin."""
        self._began = time.perf_counter()
        if self.workshop is not None:
            self.workshop.begin()
        self.spawn(gevent.spawn_later(self.options.warm_up, self.collector.gauge.mark))
        if self.watch is not None:
            self.watch.begin()

    def spawn(self, *greenlets: Any) -> None:
        """Keep greenlets that are to end with the run."""
        self._greenlets.extend(greenlets)

    def number(self) -> str:
        """Return a new user's number: that of the worker and one that counts up, the same in every run."""
        return f"{self._worker_index}.{next(self._numbers)}"

    # -- while it runs -----------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds since the users could begin, up to the end."""
        return (self.ended or time.perf_counter()) - self._began

    @property
    def counted(self) -> float:
        """Seconds since the end of the warm-up, up to the end."""
        return max(self.elapsed - self.options.warm_up, 0.0)

    @property
    def spent(self) -> bool:
        """Whether as many appends have been stored as the options allow."""
        if self.workshop is not None:
            return self.workshop.spent
        total, warm_up = self.collector.total().counts, self.collector.warm_up()
        return sum((each.successes + each.unknown) for each in (total, warm_up)) >= self.options.max_appends

    def progress(self, users: int) -> LoadProgress:
        """Return a line of figures since the last line, and add it to `series`."""
        now = self.elapsed
        # Of the second in which the warm-up ends, only the part after it counts.
        since = self._last_line if now <= self.options.warm_up else max(self._last_line, self.options.warm_up)
        seconds = max(now - since, 1e-6)
        self._last_line = now
        recent, total = self.collector.recent(), self.collector.total()
        counts, times, effort = recent.counts, recent.percentiles(), self.collector.effort()[0]
        response: dict[str, float | None] = dict.fromkeys(times)
        if self.options.rate is not None and recent.count(RESPONSE):
            response.update(recent.percentiles(RESPONSE))
        line = LoadProgress(
            elapsed=now,
            users=users,
            total=total.counts,
            goodput=counts.successes / seconds,
            conflict_rate=counts.conflicts / (counts.attempts or 1),
            p50_ms=times["p50"],
            p95_ms=times["p95"],
            p99_ms=times["p99"],
            last_error=total.last_error,
            warming_up=now <= self.options.warm_up,
            tries_per_success=counts.attempts / counts.successes if counts.successes else 0.0,
            response_p50_ms=response["p50"],
            response_p95_ms=response["p95"],
            response_p99_ms=response["p99"],
            generator_cpu=effort.cpu,
            generator_wait=effort.wait,
            streams=self.collector.heat().hottest(),
            database=None if self.watch is None else self.watch.per_second(),
            feed=None if self.followers is None else self.followers.figures,
        )
        self.series.append(line)
        return line

    # -- ending ------------------------------------------------------------------------------------------------

    def close(self) -> Ledger:
        """End the writing, once every user of this process has stopped. Return their ledger."""
        if self.ended is None:
            self.ended = time.perf_counter()
            if self.workshop is not None:
                # The run ends with the last append or its time: that Locust then stops users does not count.
                self.ended = min(self.ended, max(self.workshop.last_ended, self.workshop.until) / 1e9)
            gevent.killall([each for each in self._greenlets if each is not gevent.getcurrent()], block=False)
            self.collector.collect()
            if self.workshop is not None:
                AsyncUser.bridge.run(self.workshop.store.close())
        return Ledger() if self.workshop is None else self.workshop.close()

    def judge(self, ledgers: Iterable[Ledger]) -> None:
        """Compare the ledgers with what is stored, and make the summary."""
        ledger = Ledger()
        for each in ledgers:
            ledger.add(each)
        effort = self.collector.effort()[1]
        total = self.collector.total()
        counts = total.counts
        stored: int | None = None
        verdict: str | None = None
        database = feed = appends_per_commit = None
        pairs: tuple[PairCounts, ...] = ()
        recording: str | None = None
        try:
            if self.watch is None:
                raise LoadFailed("this process knows no database: give the master --dsn")
            database = self.watch.whole()
            found: Findings = AsyncUser.bridge.run(examine(self.watch.store, self.id, ledger))
            # Conflicts have used up numbers: later readers of the store need not wait for them.
            with contextlib.suppress(OrderUnknown):  # of a view, for example, that has no safe position
                AsyncUser.bridge.run(self.watch.store.keep_fence())
            deliveries = []
            if self.followers is not None:
                deliveries = self.followers.finish(found.head)
                feed = self.followers.figures
            judged = conclude(found, deliveries)
            stored, evidence = judged.stored, judged.evidence
            if self.options.grouping == "on" and stored:
                commits = AsyncUser.bridge.run(self.watch.store.count_commits(self.prefix))
                appends = stored / self.options.events_per_append
                if self.options.like or self.options.replay:
                    appends = counts.successes + self.collector.warm_up().successes
                appends_per_commit = appends / (commits or 1)
            if self.options.record_conflicts == "on":
                pairs, problem = AsyncUser.bridge.run(collisions(self.watch.store, self.prefix))
                recording = problem or (None if ledger.recording is None else ledger.recording.text)
            if self.missing_workers:
                evidence = (
                    *evidence,
                    f"workers ended without telling their figures: {', '.join(self.missing_workers)}",
                )
            elif counts.attempts or self.collector.warm_up().attempts or stored:
                verdict = str(judged)
            # A run that ended before the first attempt has no verdict.
        except EsxError as error:
            evidence = (f"no verdict, the store could not be read: {error}",)
        finally:
            self.discard()
        self.summary = LoadSummary(
            run=self.id,
            elapsed=self.counted,
            users=self.users,
            total=counts,
            goodput=counts.successes / self.counted if self.counted else 0.0,
            conflict_rate=counts.conflicts / (counts.attempts or 1),
            percentiles=total.percentiles(),
            stored=stored,
            verdict=verdict,
            evidence=evidence,
            last_error=total.last_error,
            options=self.options,
            environment=self.environment,
            warm_up=self.collector.warm_up(),
            tries_per_success=counts.attempts / counts.successes if counts.successes else 0.0,
            response=total.percentiles(RESPONSE) if self.options.rate is not None else {},
            time_to_success=total.percentiles(TIME_TO_SUCCESS),
            histograms=total.histograms(),
            streams=_top(ledger),
            generator_cpu=effort.cpu,
            generator_wait=effort.wait,
            saturated=effort.busy > _SATURATED,
            database=database,
            feed=feed,
            parts=self.collector.parts(),
            commands=total.count(RESPONSE),
            appends_per_commit=appends_per_commit,
            pairs=pairs,
            recording=recording,
        )

    def discard(self) -> None:
        """End the subscribers and close the watch."""
        if self.followers is not None:
            self.followers.kill()
        if self.watch is not None:
            AsyncUser.bridge.run(self.watch.store.close())


class DatabaseWatch:
    """Samples the database's counters a few times a second."""

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self.server_version = AsyncUser.bridge.run(store.place()).server_version
        self._first = self._last_line = self._now = self._sample()
        self._samples = self._recent_samples = 0
        self._waits: dict[str, int] = {}
        self._recent_waits: dict[str, int] = {}

    def begin(self) -> None:
        """Count from now on."""
        self._first = self._last_line = self._now = self._sample()

    def sample(self) -> None:
        """Take one sample, unless the database does not answer."""
        try:
            self._now = self._sample()
        except EsxError:
            return
        self._samples += 1
        self._recent_samples += 1
        for name, count in self._now.waits.items():
            self._waits[name] = self._waits.get(name, 0) + count
            self._recent_waits[name] = self._recent_waits.get(name, 0) + count

    def per_second(self) -> DatabaseFigures:
        """Return the figures since the last call, a second."""
        last, self._last_line = self._last_line, self._now
        seconds = (self._now.at - last.at).total_seconds()
        waits, samples = self._recent_waits, self._recent_samples
        self._recent_waits, self._recent_samples = {}, 0
        return _difference(last, self._now, seconds or 1.0, waits, samples)

    def whole(self) -> DatabaseFigures:
        """Return the totals since `begin`. Raises EsxError."""
        # PostgreSQL's sessions report their commits within a second, or when they end, and they have ended by now.
        self._now = self._sample()
        return _difference(self._first, self._now, 1.0, self._waits, self._samples)

    def _sample(self) -> ServerActivity:
        return AsyncUser.bridge.run(self.store.pressure(APPLICATION_NAME))


def _difference(
    begin: ServerActivity, end: ServerActivity, seconds: float, waits: dict[str, int], samples: int
) -> DatabaseFigures:
    return DatabaseFigures(
        (end.wal_bytes - begin.wal_bytes) / seconds,
        (end.commits - begin.commits) / seconds,
        (end.rollbacks - begin.rollbacks) / seconds,
        {name: count / samples for name, count in sorted(waits.items())} if samples else {},
    )


def _top(ledger: Ledger) -> tuple[StreamCounts, ...]:
    ranked = sorted(ledger.streams.items(), key=lambda item: (-item[1].conflicts, -item[1].successes, item[0]))
    return tuple(
        StreamCounts(stream, record.successes, record.conflicts)
        for stream, record in ranked[:_TOP_STREAMS]
        if record.successes or record.conflicts
    )


async def _is_used(store: EventStore, prefix: str) -> bool:
    return bool((await store.streams_page(prefix=prefix, limit=1)).streams)


async def open_store(settings: Settings, *, writes: bool = False) -> EventStore:
    """Connect to a store that a load test may write to, for its writers or for its watch. Raises EsxError."""
    dsn, options = settings.dsn, settings.load
    if dsn is None and choose(None, os.environ).embedded:
        raise LoadFailed("no database is named: set ESX_DSN or pass --dsn; `esx load` takes the embedded one by itself")
    store: EventStore = await EventStore.connect(
        dsn,
        max_connections=_MOST_CONNECTIONS if writes else 1,
        application_name=APPLICATION_NAME if writes else f"{APPLICATION_NAME} watch",
        store=options.where,
        trust_owner=settings.trust_owner,
        layouts=() if options.where is None else load_config(os.environ).layouts,
        notification=Notification(options.notification) if writes else Notification.DOORBELL,
        grouping=options.grouping == "on",
        record_conflicts=writes and options.record_conflicts == "on",
    )
    try:
        await store.head()  # raises SchemaMissing where there is no events table
        await open_appender(store, options)
        await check_may_write(store, options.yes_write_to)
    except BaseException:
        await store.close()
        raise
    return store

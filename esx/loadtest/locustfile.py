"""Load-test an event store: users read a stream's version, decide, and append at it.

    locust -f loadtest/locustfile.py                              # with the web UI
    locust -f loadtest/locustfile.py --headless -u 20 -t 20s      # without

A stream that has changed meanwhile refuses the append: a conflict, which is an outcome and not a failure. Locust's
tables show successes as "append" (with errors as its failures) and conflicts as "append (conflict)". Events go to
new streams, ``load-<run id>-<n>``; at the end they are compared with what the users were told.
"""

# Locust's types have no listeners and no async tasks.
# mypy: disable-error-code="untyped-decorator, type-var, override, no-untyped-call"
import gc
import logging
import os
import sys
from typing import Any

import gevent
from locust import constant, events, runners, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import STATE_MISSING, MasterRunner, Runner, WorkerRunner

from esx.errors import EsxError
from esx.leash import hold
from esx.load.ledger import Ledger
from esx.load.report.describe import verdict_text
from esx.loadtest import webguard, webui
from esx.loadtest.bridge import native_sleep, native_thread
from esx.loadtest.protocol import Protocol
from esx.loadtest.run import RunningTest, open_store
from esx.loadtest.settings import LONGEST_UNASKED, Settings, add_options, new_run_id, own_dsn, settings_of
from esx.loadtest.user import AsyncUser
from esx.loadtest.writer import LoadWriter

_STARTED = os.getpid()  # before Locust forks its workers
_COLLECT_EVERY = 0.25
_FINISH_WITHIN = 10.0  # seconds for the appends in flight at the end; cut off, their outcome would be unknown
_RESULTS_WITHIN = 10.0  # seconds after that for the workers' results
_STOP, _RESULT = "esx_stop", "esx_result"  # messages between master and workers

log = logging.getLogger(__name__)


class StreamWriter(AsyncUser):
    """Reads the version of a stream and appends at it, again and again."""

    wait_time = constant(0)

    async def on_start(self) -> None:
        """Take part in the run."""
        run = state.run
        assert run is not None
        assert run.workshop is not None
        self.writer = LoadWriter(run.workshop, run.number(), 1 / max(run.options.users, 1), lambda: self.stopping)
        self.think_time = run.options.think_time

    @task
    async def append(self) -> None:
        """Wait until a command is due, read, decide, append."""
        due = await self.writer.wait_until_due()
        if self.stopping:
            return
        if not await self.writer.command(due):
            await self.pause(1.0)  # nothing more may be appended: the run is about to end
        elif self.think_time:
            await self.pause(self.writer.thinking())


class ProcessState:
    """The state of this process between Locust's events."""

    run: RunningTest | None = None
    protocol: Protocol | None = None
    failure: str | None = None
    own_dsn: str | None = None


state = ProcessState()


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    add_options(parser)
    webguard.listen_here_only(parser)


@events.init.add_listener
def _init(environment: Environment, runner: Runner, **_: Any) -> None:
    options = environment.parsed_options
    assert options is not None
    if isinstance(runner, WorkerRunner) and options.processes:
        hold(by=_STARTED, start=native_thread, sleep=native_sleep)
    elif options.progress_ndjson:
        hold(kernel=False, start=native_thread, sleep=native_sleep)
        state.protocol = Protocol()
    # Greenlets that collect figures must not delay the event loop by the usual 5 ms, which would show in latencies.
    sys.setswitchinterval(0.0001)
    # Looking for garbage in what is imported, again and again, would show in latencies too.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    # Figures of each second need a report each second.
    runners.WORKER_REPORT_INTERVAL = 1.0
    # Users finish the append in progress, unless told otherwise.
    environment.stop_timeout = environment.stop_timeout or _FINISH_WITHIN
    if isinstance(runner, MasterRunner):
        runner.register_message(_RESULT, _take_result)
    elif isinstance(runner, WorkerRunner):
        runner.register_message(_STOP, _stop_worker, concurrent=True)
    webui.extend(environment, lambda: state.run)
    try:
        state.own_dsn = own_dsn(options)
        settings = settings_of(options)
        if not isinstance(runner, MasterRunner | WorkerRunner) or options.processes or settings.dsn:
            AsyncUser.bridge.run(_check(settings))
        webguard.close(environment)
        if isinstance(runner, MasterRunner):
            webguard.warn_of_master(options)
    except EsxError as error:
        if state.protocol is not None:
            state.protocol.error(str(error))
        sys.exit(f"esx: {error}")


@events.test_start.add_listener
def _test_start(environment: Environment, **_: Any) -> None:
    options, runner = environment.parsed_options, environment.runner
    assert options is not None
    assert runner is not None
    _forget_run()
    if isinstance(runner, WorkerRunner):
        # The master's options have just replaced those of this worker.
        options.dsn = state.own_dsn or options.dsn
        options.num_users = options.esx_users
    else:
        options.esx_users = options.num_users = runner.target_user_count
        options.esx_workers = max(getattr(runner, "worker_count", 1), 1)
    try:
        settings = settings_of(options)
        if not isinstance(runner, WorkerRunner):
            options.esx_run = settings.load.run_id or new_run_id()
            if not options.processes:
                # Workers without a database receive it with the other options; forked ones know it.
                options.dsn = settings.dsn
        run = RunningTest(options.esx_run, settings, environment)
        if isinstance(runner, WorkerRunner):
            run.open_workshop(index=max(runner.worker_index, 0), workers=options.esx_workers)
        elif isinstance(runner, MasterRunner):
            _open_masters_watch(run)
        else:
            run.open_workshop()
            run.open_watch()
    except EsxError as error:
        state.failure = str(error)
        environment.process_exit_code = 1
        raise StopTest(f"esx: {error}") from None
    state.run = run
    run.begin()
    if isinstance(runner, WorkerRunner):
        run.spawn(gevent.spawn(_collect, run))
        return
    run.spawn(gevent.spawn(_progress, run, environment))
    if state.protocol is not None:
        state.protocol.on_end(runner.quit)
    if options.stop_after or not options.run_time:
        seconds = run.options.warm_up + (options.stop_after or LONGEST_UNASKED)
        run.spawn(gevent.spawn_later(seconds, _end, environment))


def _open_masters_watch(run: RunningTest) -> None:
    try:
        run.open_watch()
    except EsxError as error:
        if run.settings.dsn is not None or run.options.subscribers:
            raise
        log.warning("esx: the workers' database is not known here, so there will be no verdict: %s", error)


def _forget_run() -> None:
    run, state.run = state.run, None
    if run is not None and run.judging is not None:
        run.judging.join()


def _end(environment: Environment) -> None:
    """End the run, and without the web UI Locust too."""
    runner = environment.runner
    assert runner is not None
    if environment.web_ui is None:
        runner.quit()
    else:
        runner.stop()


@events.test_stopping.add_listener
def _test_stopping(environment: Environment, **_: Any) -> None:
    run, runner = state.run, environment.runner
    if run is None or runner is None or run.ended is not None:
        return
    run.users = runner.user_count
    if isinstance(runner, MasterRunner):
        _gather(run, runner, environment.stop_timeout)


def _gather(run: RunningTest, runner: MasterRunner, stop_timeout: float) -> None:
    """Stop the workers and wait for their results, for which Locust itself does not wait when it quits."""
    # Also those that have not reported yet, and those that have ended since.
    asked = _alive(runner) | run.collector.workers
    runner.send_message(_STOP, {"run": run.id})
    with gevent.Timeout(stop_timeout + _RESULTS_WITHIN, False):
        while (asked & _alive(runner)) - run.ledgers.keys():
            gevent.sleep(0.02)
    run.missing_workers = sorted(asked - run.ledgers.keys())


def _alive(runner: MasterRunner) -> set[str]:
    return {worker.id for worker in runner.clients.all if worker.state != STATE_MISSING}


@events.test_stop.add_listener
def _test_stop(environment: Environment, **_: Any) -> None:
    run, runner = state.run, environment.runner
    if run is None or run.ended is not None:
        return
    ledger = run.close()
    if isinstance(runner, WorkerRunner):
        # With Locust's own statistics: it waits only half a second for the last ones of its workers.
        data: dict[str, Any] = {}
        environment.events.report_to_master.fire(client_id=runner.client_id, data=data)
        runner.send_message(_RESULT, {"report": data, "run": run.id, "ledger": ledger.to_wire()})
    else:
        run.judging = gevent.spawn(_judge, run, [ledger, *run.ledgers.values()])


def _judge(run: RunningTest, ledgers: list[Ledger]) -> None:
    run.judge(ledgers)
    summary = run.summary
    if summary is not None and state.protocol is None:
        verdict, judged = verdict_text(summary)
        for line in (f"run {run.id}: verdict {verdict.lower()}, {judged}", *summary.evidence):
            log.log(logging.INFO if summary.verdict == "pass" else logging.ERROR, "%s", line)


def _stop_worker(environment: Environment, msg: Any, **_: Any) -> None:
    runner, run = environment.runner, state.run
    assert isinstance(runner, WorkerRunner)
    runner.stop()
    if run is None or run.id != msg.data["run"]:
        # It has no part in that run: an empty result.
        runner.send_message(_RESULT, {"report": {}, "run": msg.data["run"], "ledger": Ledger().to_wire()})


def _take_result(environment: Environment, msg: Any, **_: Any) -> None:
    run = state.run
    if run is not None and msg.data["run"] == run.id and msg.node_id not in run.ledgers:
        if msg.data["report"]:
            environment.events.worker_report.fire(client_id=msg.node_id, data=msg.data["report"])
        run.ledgers[msg.node_id] = Ledger.from_wire(msg.data["ledger"])


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


@events.quitting.add_listener
def _quitting(environment: Environment, **_: Any) -> None:
    runner, run = environment.runner, state.run
    if run is None or runner is None or isinstance(runner, WorkerRunner):
        return
    if run.ended is None:
        # A signal: the run ends as it would by itself.
        runner.quit()
    # Where the run was already ending, `quit` has returned at once, and users may still be at their last append.
    with gevent.Timeout(environment.stop_timeout + _RESULTS_WITHIN, False):
        while run.judging is None:
            gevent.sleep(0.02)
    judging = run.judging
    while judging is not None and not judging.ready():
        judging.join(1.0)
        if state.protocol is not None:
            state.protocol.phase("judging")
    if run.summary is not None and run.summary.verdict == "fail":
        environment.process_exit_code = 1


@events.quit.add_listener
def _quit(**_: Any) -> None:
    if state.protocol is not None:
        if state.run is None or state.run.summary is None:
            state.protocol.error(state.failure or "the load test ended before it began")
        else:
            state.protocol.write(state.run.summary)
    AsyncUser.bridge.stop()


def _collect(run: RunningTest) -> None:
    while True:
        gevent.sleep(_COLLECT_EVERY)
        run.collector.collect()


def _progress(run: RunningTest, environment: Environment) -> None:
    seconds = 0
    while True:
        gevent.sleep(_COLLECT_EVERY - run.elapsed % _COLLECT_EVERY)
        run.collector.collect()
        if run.watch is not None:
            run.watch.sample()
        if run.elapsed >= seconds + 1:
            seconds = int(run.elapsed)
            assert environment.runner is not None
            line = run.progress(environment.runner.user_count)
            if state.protocol is not None:
                state.protocol.write(line)
        if run.spent:
            gevent.spawn(_end, environment)
            return


async def _check(settings: Settings) -> None:
    await (await open_store(settings)).close()

"""Running the bundled Locust scenario as a child process, and reading its figures.

Locust's gevent must not share a process with asyncio, so it gets one of its own. The child writes a JSON line a
second to its standard output. Its standard input is a leash: closing it, on purpose or by dying, makes the child
finish the appends in flight, write its summary and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import socket
import sys
from collections import deque
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esx.load.errors import LoadFailed
from esx.load.model import LoadOptions, LoadProgress, LoadSummary, from_dict
from esx.load.options import validate
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LoadLine = LoadProgress | LoadSummary

_START_LIMIT = 60.0  # seconds until the first line
_SILENCE_LIMIT = 30.0  # seconds between two lines, and for the appends in flight after a stop
_EXIT_LIMIT = 5.0  # seconds from the summary to the end of the process
_OVERTIME = 30  # seconds after its end in which a run finishes its last appends, before Locust ends it
_LONGEST_LINE = 1 << 24
_KEPT_LINES = 20
_NONSENSE = "the load test's process said what is not a line of figures: {}"
_LOCUSTS_OWN = frozenset({"users", "duration", "spawn_rate", "processes"})


class LoadRun:
    """One load test: iterate over it once for its progress, a line a second, and its summary at last.

        run = LoadRun(dsn, options)
        async for line in run:
            ...

    `dsn` None means where libpq's ``PG*`` variables point. Raises InvalidOptions at once if the options make no
    sense; the iteration raises LoadFailed if the test cannot be run. Whatever ends the iteration, the child process
    has ended by then; leave it early with `stop`, or by `aclose`, which tells no summary.
    """

    def __init__(self, dsn: str | None, options: LoadOptions) -> None:
        self.options = validate(options)
        self.interrupted = False
        """Whether `stop` was called before the run's time was over."""
        self._dsn = dsn
        self._process: asyncio.subprocess.Process | None = None
        self._heard = False
        self._errors: deque[str] = deque(maxlen=_KEPT_LINES)
        self._lines = self._follow()

    @property
    def pid(self) -> int | None:
        """The child's process id, None before it has been started."""
        return None if self._process is None else self._process.pid

    def __aiter__(self) -> AsyncIterator[LoadLine]:
        return self._lines

    def stop(self) -> None:
        """Let the writers finish the appends in flight; the iteration then ends with the summary, soon."""
        self.interrupted = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def aclose(self) -> None:
        """End the child process now, without a summary, and wait until it has ended."""
        await self._lines.aclose()  # type: ignore[attr-defined]

    async def _follow(self) -> AsyncIterator[LoadLine]:
        process = self._process = await self._spawn()
        if self.interrupted:
            self.stop()
        assert process.stderr is not None
        narration = asyncio.ensure_future(self._keep_errors(process.stderr))
        try:
            summary: LoadSummary | None = None
            while summary is None:
                line = await self._line(process, narration)
                if isinstance(line, LoadSummary):
                    summary = line
                else:
                    yield line
            # All is said: if it does not end by itself now, it is ended below.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _EXIT_LIMIT)
        finally:
            # Not by cancellation alone: a child that outlives its reader would go on writing to the store.
            await _end(process)
            narration.cancel()
        yield replace(summary, interrupted=self.interrupted and summary.elapsed < self.options.duration)

    async def _spawn(self) -> asyncio.subprocess.Process:
        scenario = _locustfile()
        options = self.options
        rate = options.users if options.spawn_rate is None else options.spawn_rate
        command = [
            *(sys.executable, "-P", "-m", "locust", "-f", str(scenario), "--headless", "--only-summary"),
            *("--users", str(options.users), "--spawn-rate", repr(float(rate))),
            # It ends itself at --stop-after; the other is the limit should that fail.
            *("--stop-after", repr(options.duration)),
            *("--run-time", f"{math.ceil(options.warm_up + options.duration) + _OVERTIME}s", "--progress-ndjson"),
            *_arguments(options),
        ]
        if options.processes > 1:
            port = str(_free_port())
            processes = str(options.processes)
            command += ["--processes", processes, "--expect-workers", processes, "--master-bind-host", "127.0.0.1"]
            command += ["--master-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
        # The address by environment, for it may hold a password. Locust's own settings are not for this run; nor
        # are configuration files and packages in the current directory, so the child starts in another.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("LOCUST_") and name not in ("ESX_DSN", "DATABASE_URL")
        }
        if self._dsn is not None:
            environment["ESX_DSN"] = self._dsn
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=scenario.parent,
                env=environment,
                limit=_LONGEST_LINE,
                start_new_session=True,  # Ctrl-C in the terminal is for us alone
            )
        except OSError as error:
            raise LoadFailed(f"cannot start Locust: {error}") from None

    async def _line(self, process: asyncio.subprocess.Process, narration: asyncio.Future[None]) -> LoadLine:
        """Return the child's next line of figures."""
        while True:
            fields = await self._fields(process, narration)
            kind = fields.get("kind")
            if kind == "error":
                raise LoadFailed(str(fields["message"]))
            if kind == "phase":
                continue  # it is at work, and has no figures to tell
            try:
                return from_dict(fields)
            except ValueError as error:
                raise LoadFailed(_NONSENSE.format(error)) from None

    async def _fields(self, process: asyncio.subprocess.Process, narration: asyncio.Future[None]) -> dict[str, Any]:
        assert process.stdout is not None
        limit = _SILENCE_LIMIT if self._heard else _START_LIMIT
        try:
            text = await asyncio.wait_for(process.stdout.readline(), limit)
        except TimeoutError:
            raise LoadFailed(f"the load test's process said nothing for {limit:g} s and was ended") from None
        self._heard = True
        if not text:
            raise LoadFailed(await self._epitaph(process, narration))
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise LoadFailed(_NONSENSE.format(error)) from None
        if not isinstance(fields, dict):
            raise LoadFailed(_NONSENSE.format(visible(text.decode(errors="replace"), limit=100)))
        return fields

    async def _keep_errors(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            if text := line.decode(errors="replace").strip():
                self._errors.append(visible(text, limit=500))

    async def _epitaph(self, process: asyncio.subprocess.Process, narration: asyncio.Future[None]) -> str:
        """Say why the child ended without a summary: the last that it wrote to standard error."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _EXIT_LIMIT)
            await asyncio.wait_for(asyncio.shield(narration), 1.0)
        last = self._errors[-1] if self._errors else "it did not say why"
        code = "did not end" if process.returncode is None else f"ended with exit code {process.returncode}"
        return f"the load test's process {code}: {last}"


def _arguments(options: LoadOptions) -> list[str]:
    """Return the scenario's own options, those that differ from their defaults."""
    default = LoadOptions()
    names = (field.name for field in fields(LoadOptions) if field.name not in _LOCUSTS_OWN)
    return [
        f"--{name.replace('_', '-')}={getattr(options, name)}"
        for name in names
        if getattr(options, name) != getattr(default, name)
    ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def run_load(dsn: str | None, options: LoadOptions) -> AsyncIterator[LoadLine]:
    """Run a load test and yield its progress, a line a second, and at last its summary with the verdict.

    `dsn` None means where libpq's ``PG*`` variables point. Raises InvalidOptions and LoadFailed. To be able to
    stop it early and still get the summary, use `LoadRun`.
    """
    run = LoadRun(dsn, options)
    try:
        async for line in run:
            yield line
    finally:
        await run.aclose()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the child and what it may have started, if it still runs, and wait for its end."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
    await process.wait()


def _locustfile() -> Path:
    """Return the path of the scenario. It is not imported here, for it would bring gevent in."""
    return Path(__file__).resolve().parents[1] / "loadtest" / "locustfile.py"

"""Running the bundled Locust scenario as a child process, and reading its figures.

Locust's gevent must not share a process with asyncio, so it gets one of its own. The child writes a JSON line a
second to its standard output. Its standard input is a leash: closing it, on purpose or by dying, makes the child
finish the appends in flight, write its summary and end.
"""

import asyncio
import contextlib
import json
import math
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from esx.leash import leashed
from esx.load.errors import LoadFailed
from esx.load.knobs import KNOBS
from esx.load.learn.rate import as_learned
from esx.load.model import LoadOptions, LoadProgress, LoadSummary, from_dict
from esx.load.options import validate
from esx.text import visible

LoadLine = LoadProgress | LoadSummary

_START_LIMIT = 60.0  # seconds until the first line
_SILENCE_LIMIT = 30.0  # seconds between two lines, and for the appends in flight after a stop
_EXIT_LIMIT = 5.0  # seconds from the summary to the end of the process
_OVERTIME = 30  # seconds after its end in which a run finishes its last appends, before Locust ends it
_LONGEST_LINE = 1 << 24
_KEPT_LINES = 20
_NONSENSE = "the load test's process said what is not a line of figures: {}"


class LoadRun:
    """One load test: iterate over it once for its progress, a line a second, and its summary at last.

        run = LoadRun(dsn, options)
        async for line in run:
            ...

    `dsn` None means the database of libpq's ``PG*`` variables. Raises InvalidOptions at once if the options are not
    valid, and BadProfile for learned traffic that cannot be read; the iteration raises LoadFailed if the test cannot be
    run. When the iteration ends, for any reason, the child process has ended. End it early with `stop`, or with
    `aclose`, which gives no summary.
    """

    def __init__(self, dsn: str | None, options: LoadOptions, *, trust_owner: bool = False) -> None:
        self.options = as_learned(validate(options))
        self.interrupted = False
        """Whether `stop` was called before the run's time was over."""
        self._dsn = dsn
        self._trust_owner = trust_owner
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
        """Let the writers finish the appends in flight; the iteration then soon ends with the summary."""
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
            # If it does not end by itself now, it is ended below.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _EXIT_LIMIT)
        finally:
            # A child that outlives its reader would go on writing to the store.
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
            # It ends itself at --stop-after; --run-time is the limit if that fails.
            *("--stop-after", repr(options.duration)),
            *("--run-time", f"{math.ceil(options.warm_up + options.duration) + _OVERTIME}s", "--progress-ndjson"),
            *_arguments(options),
            *(["--trust-owner"] if self._trust_owner else []),
        ]
        if options.processes > 1:
            port = str(_free_port())
            processes = str(options.processes)
            command += ["--processes", processes, "--expect-workers", processes, "--master-bind-host", "127.0.0.1"]
            command += ["--master-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
        # The address is in the environment, as it may hold a password. Locust's own variables do not apply to this run,
        # nor do configuration files and packages in the current directory, so the child starts in another one.
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
                env=leashed(environment),
                limit=_LONGEST_LINE,
                start_new_session=True,  # Ctrl-C in the terminal reaches only esx
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
                continue  # it works, but has no figures now
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
            raise LoadFailed(await self._why_ended(process, narration))
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

    async def _why_ended(self, process: asyncio.subprocess.Process, narration: asyncio.Future[None]) -> str:
        """Return why the child ended without a summary: the last line that it wrote to standard error."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _EXIT_LIMIT)
            await asyncio.wait_for(asyncio.shield(narration), 1.0)
        last = self._errors[-1] if self._errors else "it did not say why"
        code = "did not end" if process.returncode is None else f"ended with exit code {process.returncode}"
        return f"the load test's process {code}: {last}"


def _arguments(options: LoadOptions) -> list[str]:
    """Return the scenario's own options that differ from their defaults."""
    return [
        f"{knob.option}={getattr(options, knob.name)}"
        for knob in KNOBS
        if not knob.locusts and getattr(options, knob.name) != knob.default
    ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the child and its own children, if it still runs, and wait for its end."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
    await process.wait()


def _locustfile() -> Path:
    """Return the path of the scenario. It is not imported here, as it would import gevent."""
    return Path(__file__).resolve().parents[1] / "loadtest" / "locustfile.py"

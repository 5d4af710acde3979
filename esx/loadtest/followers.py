"""The run's subscribers, for greenlets: a child process that follows the feed and reports what it receives."""

import contextlib
import json
import os
import sys
from typing import Any

import gevent
import gevent.event
from gevent import subprocess

from esx.leash import leashed
from esx.load.errors import LoadFailed
from esx.load.model import FeedFigures
from esx.load.verdict import Delivery
from esx.loadtest.settings import Settings

_START_LIMIT = 30.0
_FINISH_LIMIT = 40.0


class Followers:
    """The subscribers of one run. Making it starts them and waits until they follow; raises LoadFailed."""

    def __init__(self, settings: Settings, prefix: str) -> None:
        environment = dict(os.environ)
        if settings.dsn is not None:
            environment["ESX_DSN"] = settings.dsn
        count, store = settings.load.subscribers, settings.load.where or ""
        trust = ["trust"] if settings.trust_owner else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "esx.load.subscribers", prefix, str(count), store, *trust],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=leashed(environment),
        )
        self._count = count
        self._line: dict[str, Any] | None = None
        self._first = gevent.event.Event()
        self._reader = gevent.spawn(self._read)
        if not self._first.wait(_START_LIMIT) or self._line is None:
            error = "they said nothing" if self._process.poll() is None else self._process.stderr.read().decode()
            self.kill()
            raise LoadFailed(f"the subscribers could not be started: {(error.strip().splitlines() or ['?'])[-1]}")

    @property
    def figures(self) -> FeedFigures:
        """What they have received so far."""
        line = self._line or {"deliveries": [], "lag": {}}
        given = line["deliveries"]
        return FeedFigures(
            self._count,
            sum(each["delivered"] for each in given),
            sum(each["duplicates"] for each in given),
            sum(each["disordered"] for each in given),
            line["lag"],
        )

    def finish(self, head: int) -> list[Delivery]:
        """Let them go on up to global_seq `head`, end them, and return what each received."""
        with contextlib.suppress(OSError):
            self._process.stdin.write(f"until {head}\n".encode())
            self._process.stdin.flush()
        self._reader.join(_FINISH_LIMIT)
        self.kill()
        line = self._line
        if line is None or not line["last"]:
            return [Delivery() for _ in range(self._count)]
        return [Delivery(**{**each, "fingerprint": int(each["fingerprint"], 16)}) for each in line["deliveries"]]

    def kill(self) -> None:
        """End them now."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._reader.kill(block=False)

    def _read(self) -> None:
        for text in self._process.stdout:
            self._line = json.loads(text)
            self._first.set()
        self._first.set()

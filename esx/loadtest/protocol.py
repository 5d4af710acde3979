"""Talking to `esx load`, whose child process Locust then is: one JSON line a second on standard output.

Standard input is the leash: when it is closed, by a parent that wants the run to end or by the parent's death, the
run ends gracefully and its summary is written.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

import gevent
from gevent import socket

from esx.load.model import LoadProgress, LoadSummary, to_dict

if TYPE_CHECKING:
    from collections.abc import Callable

_STDIN, _STDOUT, _STDERR = 0, 1, 2


class Protocol:
    """The child's side. Making one takes standard output over: what others print goes to standard error."""

    def __init__(self) -> None:
        self._output = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
        self._parent = os.getppid()

    def write(self, line: LoadProgress | LoadSummary) -> None:
        """Write one line. A parent that has gone is not an error."""
        self._send(to_dict(line))

    def phase(self, name: str) -> None:
        """Say what goes on while there are no figures."""
        self._send({"kind": "phase", "phase": name})

    def error(self, message: str) -> None:
        """Say in one line why there will be no summary."""
        self._send({"kind": "error", "message": message})

    def on_end(self, stop: Callable[[], object]) -> None:
        """Call `stop` in a greenlet once the parent closes our standard input, or dies."""

        def watch() -> None:
            while os.getppid() == self._parent:
                try:
                    socket.wait_read(_STDIN, timeout=1.0)
                except TimeoutError:
                    continue
                if not os.read(_STDIN, 4096):
                    break
            stop()

        gevent.spawn(watch)

    def _send(self, fields: dict[str, Any]) -> None:
        data = (json.dumps(fields) + "\n").encode()
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._output, data) :]

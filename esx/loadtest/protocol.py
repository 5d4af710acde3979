"""The protocol between Locust and its parent `esx load`: one JSON line a second on standard output.

When standard input is closed, by a parent that wants the run to end or by the parent's death, the run ends gracefully
and its summary is written.
"""

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket

from esx.load.model import LoadProgress, LoadSummary, to_dict

_STDIN, _STDOUT, _STDERR = 0, 1, 2


class Protocol:
    """The child's side. Making one takes over standard output: other output goes to standard error from then on."""

    def __init__(self) -> None:
        self._output = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
        self._parent = os.getppid()

    def write(self, line: LoadProgress | LoadSummary) -> None:
        """Write one line, also if the parent has ended."""
        self._send(to_dict(line))

    def phase(self, name: str) -> None:
        """Say what the child does while there are no figures."""
        self._send({"kind": "phase", "phase": name})

    def error(self, message: str) -> None:
        """Say why there will be no summary."""
        self._send({"kind": "error", "message": message})

    def on_end(self, stop: Callable[[], object]) -> None:
        """Call `stop` in a greenlet once the parent closes the child's standard input, or ends."""

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

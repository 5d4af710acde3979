from __future__ import annotations

import errno
import socket
import ssl

import pytest

from esx.errors import StoreUnavailable
from esx.eventstore import EventStore
from esx.postgres.driver_errors import first_line


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
        (OSError(errno.EHOSTUNREACH, "Connect call failed ('10.0.0.1', 1)"), "no route to host"),
        (TimeoutError(errno.ETIMEDOUT, "Connect call failed ('10.0.0.1', 1)"), "connection timed out"),
        (TimeoutError(), "timed out"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call"),
            "connection refused",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "the host name has no address: name or service not known",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "no such file or directory"),
        # These say more than the system does.
        (ssl.SSLError(1, "certificate verify failed"), "certificate verify failed"),
        (ConnectionError("the server rejected SSL upgrade"), "the server rejected SSL upgrade"),
    ],
)
def test_errors_of_the_network_have_the_words_that_psql_shows(error: OSError, words: str) -> None:
    assert first_line(error) == words


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2"])
async def test_nothing_of_the_driver_is_in_the_reason_why_a_server_is_not_reached(address: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"^cannot reach me@.*: connection refused$"):
        async with EventStore.connect(f"postgresql://me@{address}/shop"):
            pass

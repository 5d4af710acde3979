"""Connects as libpq does: to one host after the other, each with its own password, until one is suitable."""

import asyncio
import contextlib
import random
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import asyncpg

from esx.libpq.target import Host, Target
from esx.postgres.driver_internals import socket_of
from esx.postgres.session import Session

# After these errors the next host is tried; not if a host refuses the user or the password.
_NEXT = (OSError, asyncpg.CannotConnectNowError, asyncpg.exceptions.TargetServerAttributeNotMatched)
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": 20_000}
_SOCKET_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


async def dial(target: Target, *, application_name: str, timeout: float, **options: Any) -> Session:
    """Connect to the first suitable host; `timeout` is in seconds, for all hosts together.

    The target's own limit for each host replaces it. `options` are those of `asyncpg.connect`. Raises the
    driver's errors, OSError, TimeoutError, and BadParameter for a file of TLS that cannot be used.
    """
    hosts = list(target.hosts)
    if target.shuffle:
        hosts = [each for host in hosts for each in await _addresses(host)]
        random.shuffle(hosts)
    wanted = target.target_session_attrs
    tries = [
        (each, host) for each in (("standby", "any") if wanted == "prefer-standby" else (wanted,)) for host in hosts
    ]
    limit = timeout / len(tries) if target.connect_timeout is None else target.connect_timeout or None
    failure: Exception | None = None
    for attribute, host in tries:
        try:
            connection = await _connect(
                target, host, attribute, application_name=application_name, timeout=limit, **options
            )
        except _NEXT as error:
            failure = error
            continue
        connection.dialled = host.goes_to
        _notice_a_dead_peer(connection, target.keepalive)
        return connection
    assert failure is not None
    raise failure


async def _connect(target: Target, host: Host, attribute: str, *, application_name: str, **options: Any) -> Session:
    dsn = "postgresql://"
    context: Any = False  # the stubs know less than the driver
    # All is given, so that the driver reads no variables and files itself.
    if not host.is_socket and target.tls.strict:
        context = target.tls.context(host.name if host.address and host.name else None)
    elif not host.is_socket and target.tls.mode != "disable":
        dsn, context = f"{dsn}?{urlencode(target.tls.parameters())}", None
    how: dict[str, Any] = dict(
        options,
        host=[host.goes_to],
        port=[host.port],
        user=target.user,
        password=host.password or "",
        database=target.database,
        ssl=context,
        direct_tls=target.tls.direct and not host.is_socket,
        target_session_attrs=attribute,
        krbsrvname=target.krbsrvname or "postgres",
        gsslib=target.gsslib,
        server_settings={**target.settings, "application_name": application_name},
        connection_class=Session,
    )
    connection: Session = await asyncpg.connect(dsn, **how)
    return connection


async def _addresses(host: Host) -> list[Host]:
    """Return a host for each of the addresses that its name has."""
    if host.is_socket or host.address:
        return [host]
    found = await asyncio.get_running_loop().getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
    addresses = sorted({str(each[4][0]) for each in found})
    return [replace(host, address=address) for address in addresses] if len(addresses) > 1 else [host]


def _notice_a_dead_peer(connection: Session, asked: Mapping[str, int]) -> None:
    """Let the kernel end a connection whose peer is gone, after some 20 seconds or as `asked`."""
    peer = socket_of(connection)
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(asked.get("keepalives", 1) != 0))
        for name, value in {**_KEEPALIVE, **asked}.items():
            # As in libpq, 0 means the system's default.
            if value > 0 and name in _SOCKET_OPTIONS and hasattr(socket, _SOCKET_OPTIONS[name]):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, _SOCKET_OPTIONS[name]), value)

"""All that esx uses of asyncpg beyond its documented interface, each with a documented alternative.

asyncpg may change these without notice. If a version does not have one of them, or has changed it, esx uses the
documented alternative, which is slower or sees less, and logs one line (``esx.postgres``) per process.
"""

from __future__ import annotations

import functools
import inspect
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

T = TypeVar("T")

_log = logging.getLogger("esx.postgres")
# The exceptions of a call to something that has changed.
_CHANGED = (AttributeError, TypeError, ValueError, KeyError, ImportError, StopIteration)
_BIND_EXECUTE = ("self", "state", "args", "portal_name", "limit", "return_extra", "timeout")
# The numbers of PostgreSQL's arrays and of what is in them, which are the same in every version and database.
_ARRAYS = {
    "_json": (199, 114),
    "_bool": (1000, 16),
    "_bytea": (1001, 17),
    "_name": (1003, 19),
    "_int2": (1005, 21),
    "_int4": (1007, 23),
    "_int8": (1016, 20),
    "_float4": (1021, 700),
    "_float8": (1022, 701),
    "_timestamptz": (1185, 1184),
    "_uuid": (2951, 2950),
    "_jsonb": (3807, 3802),
}
_told: set[str] = set()
"""The versions of asyncpg for which it was logged."""


def _tell(what: str) -> None:
    if asyncpg.__version__ not in _told:
        _told.add(asyncpg.__version__)
        _log.warning(
            "asyncpg %s has changed inside (%s): esx uses what asyncpg documents instead, which is slower",
            asyncpg.__version__,
            what,
        )


def _or(documented: Callable[[Any], T]) -> Callable[[Callable[[Any], T]], Callable[[Any], T]]:
    """Make a function of a connection call `documented` instead if asyncpg has changed."""

    def guard(internal: Callable[[Any], T]) -> Callable[[Any], T]:
        @functools.wraps(internal)
        def guarded(connection: Any) -> T:
            try:
                return internal(connection)
            except _CHANGED as error:
                _tell(f"{internal.__name__}: {error}")
                return documented(connection)

        return guarded

    return guard


def _nothing(_: object) -> Any:
    """Do nothing: there is no documented alternative."""


def _is_as_known() -> bool:
    try:
        from asyncpg.protocol.protocol import BaseProtocol

        return tuple(inspect.signature(BaseProtocol.bind_execute).parameters) == _BIND_EXECUTE
    except _CHANGED:
        return False


_DIRECT = _is_as_known()


def fetch_prepared(
    connection: asyncpg.Connection, statement: PreparedStatement[asyncpg.Record], arguments: Sequence[object]
) -> Awaitable[Sequence[asyncpg.Record]]:
    """Return an awaitable that runs a prepared statement and returns its rows.

    asyncpg's layers above its protocol are an eighth of the client's cost of a small append, and esx needs nothing that
    they add, such as reading composite types again. Documented: `statement.fetch`.
    """
    if _DIRECT:
        try:
            protocol = connection._protocol  # type: ignore[attr-defined]
            if protocol is not None:  # else it was terminated, and asyncpg raises below
                rows: Awaitable[Sequence[asyncpg.Record]] = protocol.bind_execute(
                    statement._state,  # type: ignore[attr-defined]
                    *(arguments, "", 0, False, None),
                )
                return rows
        except (AttributeError, TypeError) as error:  # of the call; those of the statement come when it is awaited
            _tell(f"fetch_prepared: {error}")
    else:
        _tell("fetch_prepared")
    return statement.fetch(*arguments)


def _counted(connection: Any) -> tuple[int, int] | None:
    return (connection.begun, 0) if connection.begun != connection.ended else None


@_or(_counted)
def progress(connection: Any) -> tuple[int, int] | None:
    """Return a value that changes when a statement begins or when a part of it was sent; None without a statement.

    asyncpg does not say whether it waits for an answer. But each of its operations first refuses to run beside another
    one. This uses an operation that does nothing else, as it is always refused for a statement that is in use.

    Documented: the session counts its statements itself. It does not see prepared statements and cursors of handlers,
    which are not watched then; and a request that takes longer to send than a connection may be silent counts as lost.
    """
    from asyncpg.protocol.protocol import PreparedStatementState

    protocol = connection._protocol
    if protocol is None:  # terminated
        return None
    statement = PreparedStatementState("", "", protocol, asyncpg.Record, False)
    statement.attach()
    asked = protocol.close_statement(statement, None)
    try:
        asked.send(None)
    except asyncpg.InternalClientError:
        return None
    except asyncpg.InterfaceError:
        pass
    else:  # it waits for a statement to be cancelled
        asked.close()
    return protocol.queries_count, connection._transport.get_write_buffer_size()


@_or(_nothing)
def socket_of(connection: Any) -> socket.socket | None:
    """Return the socket of a connection, to set its options; None if it is closed.

    Documented: nothing. Then the watchdog and the heartbeat of the listening connection notice a dead peer.
    """
    transport = connection._transport
    return None if transport is None else transport.get_extra_info("socket")


@_or(_nothing)
def look_up_types_with_jit(connection: Any) -> None:
    """Keep asyncpg from changing the setting jit when it looks up a type.

    It turns jit off for the session, and on again afterwards: behind a pooler perhaps in another session.

    Documented: nothing. Then jit may stay off in a session of the pooler, which changes no result.
    """
    connection._server_caps = connection._server_caps._replace(jit=False)


@_or(_nothing)
def know_arrays(connection: Any) -> None:
    """Tell asyncpg of the arrays of PostgreSQL's own types, of which it knows some only.

    It asks the catalogs for each of the others, in every session, which takes PostgreSQL longer than to plan most
    queries.

    Documented: nothing. Then asyncpg asks.
    """
    settings = connection._protocol.get_settings()
    of_no_other_sort = dict.fromkeys(("basetype", "range_subtype", "attrtypoids", "attrnames"))
    settings.register_data_types(
        [
            {**of_no_other_sort, "oid": oid, "ns": "pg_catalog", "name": name, "kind": b"b", "elemtype": element,
             "elemdelim": ",", "elemtype_name": name[1:]}
            for name, (oid, element) in _ARRAYS.items()
        ]
    )  # fmt: skip

"""Connections: opening them, and telling the caller what went wrong with them in the store's own terms."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from esx.store.errors import EsxError, InvalidQuery, SchemaMissing, StoreFailed, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ClientConfigurationError,
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
)
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_BAD_QUERY = (
    asyncpg.InvalidRegularExpressionError,
    asyncpg.SyntaxOrAccessError,
    asyncpg.DataError,
)


def is_connection_loss(error: BaseException) -> bool:
    """Return whether `error` means that the connection is gone, so that the outcome may be unknown."""
    if isinstance(error, asyncpg.InternalClientError):
        # What asyncpg says when the server ends a connection between two of its steps
        # (https://github.com/MagicStack/asyncpg/issues/1069).
        return True
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or "closing" in str(error)
    return isinstance(error, _GONE)


def as_store_error(error: BaseException, where: str) -> EsxError | None:
    """Return the error of the store that says what asyncpg's `error` means, or None if it is not one of these."""
    text = first_line(error)
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError):
        return SchemaMissing(f"{where} has no usable events table ({text}): run `esx init` to create it")
    if is_connection_loss(error):
        return StoreUnavailable(f"cannot reach {where}: {text}")
    if isinstance(error, asyncpg.QueryCanceledError):
        return StoreFailed(f"PostgreSQL cancelled the query: {text}")
    if isinstance(error, asyncpg.InsufficientPrivilegeError | asyncpg.ReadOnlySQLTransactionError):
        return StoreFailed(f"{where} does not allow it: {text}")
    if isinstance(error, _BAD_QUERY):
        return InvalidQuery(f"PostgreSQL does not accept this query: {text}")
    if isinstance(error, DRIVER_ERRORS):
        return StoreFailed(f"{where}: {text}")
    return None


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn asyncpg's and the socket's errors into the store's; `where` names the database in messages."""
    try:
        yield
    except EsxError:
        raise
    except (*DRIVER_ERRORS, OSError, asyncio.IncompleteReadError) as error:
        known = as_store_error(error, where)
        if known is None:
            raise
        raise known from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe(dsn: str | None) -> str:
    """Return ``user@host:port/database`` for messages: never a password. None stands for libpq's variables."""
    parts = urlsplit(dsn or "")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    try:
        port = str(parts.port or "")
    except ValueError:
        port = "?"
    host = parts.hostname or query.get("host") or os.environ.get("PGHOST") or "localhost"
    port = port or query.get("port") or os.environ.get("PGPORT") or ""
    user = unquote(parts.username or "") or query.get("user") or os.environ.get("PGUSER") or ""
    database = unquote(parts.path.lstrip("/")) or query.get("dbname") or os.environ.get("PGDATABASE") or user
    return f"{user + '@' if user else ''}{host}{':' + port if port else ''}{'/' + database if database else ''}"


async def _keep_session(_connection: Any) -> None:
    # The pool's own reset costs a round trip each time a connection is returned; every statement here keeps
    # its settings and locks inside its transaction, so there is nothing to undo.
    return


async def open_pool(
    dsn: str | None,
    *,
    size: int,
    application_name: str,
    read_only: bool,
    timeout: float,
) -> asyncpg.Pool:
    """Open a pool of at most `size` connections, one of them now.

    Raises StoreUnavailable if the database cannot be reached within `timeout` seconds.
    """
    with translated(describe(dsn)):
        try:
            return await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=size,
                timeout=timeout,
                reset=_keep_session,
                server_settings=server_settings(application_name, read_only=read_only),
            )
        except ValueError as error:
            raise StoreUnavailable(
                f"{describe(dsn)} is not a usable address: {first_line(error)} "
                "(expected postgresql://user@host:port/database)"
            ) from error


def server_settings(application_name: str, *, read_only: bool = False) -> dict[str, str]:
    """Return what each session sets: its name, and whether it may write."""
    settings = {"application_name": application_name}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    return settings

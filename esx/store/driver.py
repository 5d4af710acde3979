"""Telling what went wrong with the driver, asyncpg, in the store's own terms."""

from __future__ import annotations

import asyncio

import asyncpg

from esx.store.errors import (
    EsxError,
    InvalidQuery,
    NotAllowed,
    QueryCancelled,
    QueryGivenUp,
    QueryTimeout,
    SchemaMissing,
    StoreFailed,
    StoreUnavailable,
)

_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
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


def is_cancelled(error: BaseException) -> bool:
    """Return whether `error` says that a statement was cancelled from outside, by somebody or by recovery on a standby.

    A statement timeout, which would come again, is none. PostgreSQL tells it by the same code, and apart only by its
    words, which follow lc_messages: in a language other than English it is taken for a cancelled statement too. Other
    limits have codes of their own: that for locks, and those that end the session (idle in a transaction, the length
    of a transaction).
    """
    if isinstance(error, asyncpg.QueryCanceledError):
        return "statement timeout" not in str(error)
    # Transactions here are read committed, in which nothing else fails to serialize.
    return isinstance(error, asyncpg.SerializationError)


def as_store_error(error: BaseException, where: str) -> EsxError | None:
    """Return the error of the store that says what asyncpg's `error` means, or None if it is not one of these."""
    text = first_line(error)
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError):
        return SchemaMissing(f"{where} has no usable events table ({text}): run `esx init` to create it")
    if isinstance(error, asyncpg.ClientConfigurationError):
        return StoreUnavailable(
            f"{where} is not usable as it is: {text if where in text else type(error).__name__} "
            "(expected postgresql://user@host:port/database)"
        )
    if isinstance(error, asyncpg.ProtocolViolationError) and "startup parameter" in text:
        return StoreUnavailable(
            f"the connection pooler at {where} refuses a setting of the address or of PGOPTIONS ({text}): leave it "
            "out, and set it by ALTER ROLE; or let PgBouncer's ignore_startup_parameters drop it"
        )
    closed = isinstance(error, asyncpg.ObjectNotInPrerequisiteStateError) and "accepting connections" in text
    if closed or is_connection_loss(error):
        return StoreUnavailable(f"cannot reach {where}: {text}")
    if isinstance(error, asyncpg.LockNotAvailableError):
        return StoreFailed(f"{where} is busy: somebody has held the lock that this needs for too long; try again later")
    if is_cancelled(error):
        return QueryCancelled(f"a statement was cancelled at {where}: {text}; nothing of it was done, so try again")
    if isinstance(error, asyncpg.QueryCanceledError):
        return took_too_long()
    if isinstance(error, asyncpg.InsufficientPrivilegeError | asyncpg.ReadOnlySQLTransactionError):
        return NotAllowed(f"{where} does not allow it: {text}")
    if isinstance(error, asyncpg.DataError) and "out of int64 range" in text:
        return InvalidQuery(f"a number is too large: the highest that PostgreSQL holds is {2**63 - 1}")
    if isinstance(error, _BAD_QUERY):
        return InvalidQuery(f"PostgreSQL does not accept this query: {text}")
    if isinstance(error, OverflowError) and "date" in text:
        return StoreFailed(f"{where} holds an event whose created_at is beyond the year 9999, which cannot be shown")
    if isinstance(error, DRIVER_ERRORS):
        return StoreFailed(f"{where}: {text}")
    return None


def took_too_long() -> QueryTimeout:
    """Return the error for a query that was ended by its limit."""
    return QueryTimeout(
        "the query took longer than the statement timeout and was ended: narrow it, or raise statement_timeout"
    )


def given_up() -> QueryGivenUp:
    """Return the error for a query that was waited for no longer."""
    return QueryGivenUp(
        "the query took longer than the statement timeout and was given up: narrow it, or raise statement_timeout"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

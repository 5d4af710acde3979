"""The errors of the driver, asyncpg, as errors of the store."""

import asyncio
import os
import re
import socket
import ssl

import asyncpg

from esx.errors import (
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
STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
"""A table was altered since a statement was prepared; it was not run, and is prepared again the next time."""
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_BAD_QUERY = (
    asyncpg.InvalidRegularExpressionError,
    asyncpg.SyntaxOrAccessError,
    asyncpg.DataError,
)
_TOO_LONG = "the query took longer than the statement timeout and was {}: narrow it, or raise statement_timeout"
_ANSWERS = (asyncpg.InvalidCatalogNameError, asyncpg.TooManyConnectionsError, asyncpg.CannotConnectNowError)
"""A server that says these runs."""


def is_connection_loss(error: BaseException) -> bool:
    """Return whether `error` means that the connection is gone, so that the outcome may be unknown."""
    if isinstance(error, asyncpg.InternalClientError):
        # asyncpg raises it if the server ends a connection between two steps
        # (https://github.com/MagicStack/asyncpg/issues/1069).
        return True
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or "closing" in str(error)
    return isinstance(error, _GONE)


def is_spent(error: BaseException) -> bool:
    """Return whether `error`, of the driver or the store, says that a new session is needed, as a table was altered.

    PL/pgSQL keeps the plan of a trigger for the old type of a column as long as the session lasts. Nothing was stored.
    """
    cause = error.__cause__ if isinstance(error, EsxError) else error
    if isinstance(cause, STALE):
        return True
    if not isinstance(cause, asyncpg.DatatypeMismatchError):
        return False
    return str(cause.as_dict().get("server_source_function")).startswith("plpgsql_param_eval")


def is_of_no_more_use(error: BaseException, *, standby: bool) -> bool:
    """Return whether a session that raised `error` has to be replaced; `standby` says that it is one on a standby.

    asyncpg may take a lost connection for usable; then the next loan of it would wait without end. A connection to a
    standby that was to write may have been opened while the address led there: a new one goes where it leads now.
    """
    return (standby and refused_as_read_only(error)) or is_spent(error) or is_connection_loss(error)


def refused_as_read_only(error: BaseException) -> bool:
    """Return whether `error`, of the driver or the store, says that a read-only session was to write."""
    return isinstance(error.__cause__ if isinstance(error, EsxError) else error, asyncpg.ReadOnlySQLTransactionError)


def is_cancelled(error: BaseException) -> bool:
    """Return whether `error` says that a statement was cancelled from outside, so that it can be sent again.

    A user may cancel it, recovery on a standby, or PostgreSQL, to end a deadlock.

    A statement timeout, which would come again, does not count. It has the same code, and only its message differs,
    which follows lc_messages: in another language than English it counts as a cancelled statement too. Other limits
    have codes of their own: for locks, for idle transactions and for the length of a transaction.
    """
    if isinstance(error, asyncpg.QueryCanceledError):
        return "statement timeout" not in str(error)
    # At read committed nothing else raises a serialization error.
    return isinstance(error, asyncpg.SerializationError | asyncpg.DeadlockDetectedError)


def as_store_error(error: BaseException, where: str) -> EsxError | None:
    """Return the store's error for an error of asyncpg, None for any other error. `where` is the address."""
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
    if isinstance(error, asyncpg.InternalClientError) and not isinstance(
        error, asyncpg.TargetServerAttributeNotMatched
    ):
        text = "the server has ended the connection"  # the driver tells only what it was doing itself
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return login_refused(where, text)
    if closed or is_connection_loss(error):
        unreachable = StoreUnavailable(f"cannot reach {where}: {text}")
        unreachable.answered = closed or isinstance(error, _ANSWERS)
        return unreachable
    if isinstance(error, asyncpg.LockNotAvailableError):
        return StoreFailed(
            f"{where} is busy: another session has held the lock that this needs for too long; try again later"
        )
    if is_spent(error):
        return StoreFailed(f"{where}: a table was altered since this session began; nothing was stored, so try again")
    if is_cancelled(error):
        return QueryCancelled(f"a statement was cancelled at {where}: {text}; nothing of it was done, so try again")
    if isinstance(error, asyncpg.QueryCanceledError):
        return QueryTimeout(_TOO_LONG.format("ended"))
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


def given_up() -> QueryGivenUp:
    """Return the error for a query that esx has stopped waiting for."""
    return QueryGivenUp(_TOO_LONG.format("given up"))


def login_refused(where: str, why: str) -> StoreUnavailable:
    """Return the error for a server that answers, and refuses the user or the password."""
    refusal = StoreUnavailable(f"{where} refuses the login: {why}")
    refusal.refused = True
    return refusal


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type without a message.

    Errors of the network have the system's words, as psql shows them, not the driver's: ``connection refused``.
    """
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        if isinstance(error, socket.gaierror):
            return f"the host name has no address: {_lowered(error.strerror or str(error))}"
        # asyncio joins the errors of several addresses into the text of one.
        numbers = [error.errno] if error.errno else map(int, re.findall(r"\[Errno (\d+)\]", str(error)))
        words = ", ".join(dict.fromkeys(_lowered(os.strerror(number)) for number in numbers))
        if words:
            return words
        if isinstance(error, TimeoutError) and not str(error):
            return "timed out"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def told(error: asyncpg.PostgresError) -> str:
    """Return the first line of what PostgreSQL says of a statement, with its hint, in one line."""
    hint = " ".join((error.hint or "").split())
    return f"{first_line(error)}{f' ({hint})' if hint else ''}"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]

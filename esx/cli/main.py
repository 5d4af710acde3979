"""The command `esx`: finds the command asked for, and turns every error into one line and an exit code.

Commands are imported when they are used, so that `esx --version` and `esx --help` answer at once.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

import click

from esx import __version__
from esx.cli.hidden import CannotHide, hide_passwords
from esx.cli.lazy import LazyGroup
from esx.cli.options import COMPLETE, database_option, decoder_option, ended_incomplete, reducer_option

if TYPE_CHECKING:
    from types import FrameType

DONE, FAILED, WRONG_USAGE, WRONG_VERSION, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 4, 130
_told: list[str] = []
"""The errors that were reported."""


class _ReaderGone(Exception):
    """The reader of stdout has ended, as with ``| head``."""


class _Commands(LazyGroup):
    package = "esx.cli"
    listed = {  # noqa: RUF012 - declared in the base class
        "demo": "Fill the embedded store with a sample history and open the explorer on it.",
        "init": "Create the events table (apply schema.sql); safe to repeat.",
        "stores": "List the event stores of the database, of any kind.",
        "streams": "List streams.",
        "types": "List the event types, with the shapes of their data.",
        "summary": "Say what happened in a time window, against the one before.",
        "read": "Print the events of a stream, or of $all.",
        "state": "Print what the events of a stream fold to, at any version.",
        "append": "Append an event, or a batch, with an expected version.",
        "tail": "Follow the ordered feed of all events.",
        "trail": "Print what shares an event's correlation id, and what caused what.",
        "open": "Open the explorer where a locator leads.",
        "bookmarks": "List the events and streams that were kept with a note.",
        "export": "Write all events, or a slice, as NDJSON.",
        "import": "Store events from NDJSON; safe to repeat.",
        "capsule": "Record a slice of the store in one file, and look into it.",
        "project": "Run a projection: your function, once for each event.",
        "consumers": "List projections and relays; pause, move, skip, delete them.",
        "relay": "Hand the feed to Kafka, Kinesis or a web address.",
        "check": "Judge consumers and the feed in one line, for monitoring.",
        "metrics": "Serve metrics of the store and its consumers to Prometheus.",
        "conflicts": "Say why appends conflicted: which types lost to which, where, when.",
        "health": "Print head, safe position, writers, projections and sizes.",
        "doctor": "Look for what is wrong with the store, with remedies.",
        "serve": "Show the explorer in a browser.",
        "config": "Show the config file and the settings in effect.",
        "completion": "Print what makes a shell complete esx.",
        "man": "Show the manual page.",
        "load": "Load-test optimistic concurrency with the bundled Locust scenario.",
    }
    modules = {  # noqa: RUF012 - a module cannot be named like a keyword
        "import": "import_",
        "load": "load.run",
        "relay": "relay.group",
        "consumers": "consumers.group",
        "project": "project.group",
        "capsule": "capsule.group",
    }

    def invoke(self, ctx: click.Context) -> object:
        try:
            result = super().invoke(ctx)
        except BrokenPipeError:
            # Before click sees it, which would report a failure.
            raise _ReaderGone from None
        # An error counts for more than an incomplete answer.
        return result or (INCOMPLETE if ended_incomplete(ctx) else DONE)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="esx %(version)s")
@database_option
@reducer_option
@decoder_option
@click.pass_context
def cli(ctx: click.Context, dsn: str | None, reducer: str | None, decoder: str | None) -> None:
    """Look into event stores kept in PostgreSQL, follow them live, and load-test them.

    Without a command, esx opens the explorer.

    The database is the first of: --dsn, $ESX_DSN, $DATABASE_URL, libpq's PG* variables, and a PostgreSQL that
    comes with esx. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 wrong version, 4 incomplete
    (stderr says what is missing), 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP.
    """
    if ctx.invoked_subcommand is None:
        from esx.cli.explore import explore

        explore(dsn, reducer, decoder)
    for option, value in (("reducer", reducer), ("decoder", decoder)):
        if value is not None and ctx.invoked_subcommand is not None:
            raise click.UsageError(f"--{option} belongs after the command: esx {ctx.invoked_subcommand} --{option} ...")


# SIGHUP comes when the terminal is closed; Windows has none.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main() -> NoReturn:
    """Run the command line and exit."""
    # Imports and pages of events make many objects that are no garbage: one search among all of them takes 20 ms.
    gc.set_threshold(100_000, 20, 50)
    try:
        hide_passwords()
    except CannotHide as error:
        sys.exit(_fail(str(error), WRONG_USAGE))
    for each in _ENDING:
        if signal.getsignal(each) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(each, _end_orderly)
    if "ESX_PARENT" in os.environ:
        from esx.leash import hold

        hold()
    _prepare_streams()
    if COMPLETE in os.environ:
        from esx.cli.completing import prepare

        prepare()
    code = _run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # A reader that has ended misses nothing.
        code = DONE if code == INCOMPLETE else code
        _drop_stdout()
    except OSError as error:
        reason = error.strerror or str(error)
        if not any(reason in message for message in _told):
            _fail(f"cannot write to stdout: {reason}", FAILED)
        code = code if code not in (DONE, INCOMPLETE) else FAILED
        _drop_stdout()
    if COMPLETE in os.environ:
        os._exit(code)  # the shell waits, and the clock that ends it in any case would kill it while Python ends
    # At its end Python searches for garbage among all there is, which takes a tenth of a short command's time.
    gc.freeze()
    sys.exit(code)


def _prepare_streams() -> None:
    """Make the standard streams UTF-8 in every locale, and replace those that are closed.

    Reading from or writing to a closed one is an error, except for stderr, where errors are printed. Its file number is
    taken, or the next file that is opened would get that number, and the output.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        stream = getattr(sys, name)
        if stream is None and name == "stderr":
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as we run
        elif stream is None:
            setattr(sys, name, _closed_stream(name))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="strict" if name == "stdin" else "backslashreplace")


def _closed_stream(name: str) -> TextIO:
    raw = _Closed(name)
    buffer = io.BufferedReader(raw) if name == "stdin" else io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace")


class _Closed(io.RawIOBase):
    """A standard stream that was closed when esx started."""

    def __init__(self, name: str) -> None:
        self._name = name

    def readable(self) -> bool:
        return self._name == "stdin"

    def writable(self) -> bool:
        return not self.readable()

    def fileno(self) -> int:
        raise self._error()

    def readinto(self, _buffer: object) -> int:
        raise self._error()

    def write(self, _data: object) -> int:
        raise self._error()

    def _error(self) -> OSError:
        return OSError(errno.EBADF, f"{self._name} is closed")


def _run() -> int:
    try:
        result = cli.main(standalone_mode=False, prog_name="esx")
        return result if isinstance(result, int) else DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return WRONG_USAGE
    except click.UsageError as error:
        if isinstance(error, click.NoSuchOption):
            error = _no_such_option(error)
        where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        return _fail(f"{error.format_message().rstrip('.')}{where}", WRONG_USAGE)
    except click.ClickException as error:
        return _fail(error.format_message(), FAILED)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FAILED
    except _ReaderGone:
        _drop_stdout()
        return DONE
    except Exception as error:
        from esx.errors import EsxError, InvalidQuery, WrongVersion

        # Not imported: where one of them was raised, its module is there already.
        for module, name in (("esx.config", "BadConfig"), ("esx.database_choice", "BadDatabase")):
            if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
                return _fail(str(error), WRONG_USAGE)
        if isinstance(error, WrongVersion):
            return _fail(str(error), WRONG_VERSION)
        if isinstance(error, InvalidQuery):
            return _fail(str(error), WRONG_USAGE)
        if isinstance(error, EsxError):
            return _fail(str(error), FAILED)
        if isinstance(error, OSError):
            return _fail(str(error) if error.filename else error.strerror or str(error), FAILED)
        if os.environ.get("ESX_DEBUG"):
            raise
        return _fail(f"unexpected {type(error).__name__}: {error} (set ESX_DEBUG=1 to see where)", FAILED)


def _no_such_option(error: click.NoSuchOption) -> click.UsageError:
    """Return the same error, in one clause, with the options that are like a wrong one."""
    from esx.text import either

    near = f": did you mean {either(error.possibilities)}?" if error.possibilities else ""
    return click.UsageError(f"no such option {error.option_name}{near}", error.ctx)


def _fail(message: str, code: int) -> int:
    from esx.text import visible

    _told.append(message)
    click.echo(f"esx: {visible(message)}", err=True)
    return code


def _drop_stdout() -> None:
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:
        # It was closed: what is left in its buffer must not be written again at exit.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as we run


def _end_orderly(number: int, _frame: FrameType | None) -> None:
    # Runs finally blocks, and stops the embedded server if no other process uses it. Further signals are ignored: the
    # shell and the kernel may both report a closed terminal.
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)

"""esx import."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import threading
from typing import TYPE_CHECKING

import click

from esx.cli.decoding import Unreadable, plain
from esx.cli.opening import with_store
from esx.cli.options import complete_file, database_option, json_option, mark_incomplete, partial_option
from esx.cli.output import Meter, OutputLines, narrate
from esx.text import counted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from esx.eventstore import EventStore
    from esx.store.bulk.import_ import Imported

_PIECE = 2**20
_PIECES_AHEAD = 4


def _usable(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and (not value or value.startswith("$")):
        raise click.BadParameter("it is empty or begins with $: give another text")
    return value


@click.command(name="import")
@click.argument("file", metavar="FILE|-", shell_complete=complete_file)
@click.option(
    "--keep-global-seq",
    is_flag=True,
    help="Keep the global_seq of the lines, which must ascend and be above all that the store has used.",
)
@click.option("--renumber", is_flag=True, help="Assign new stream_seq in each stream, for slices that have holes.")
@click.option(
    "--faithful",
    is_flag=True,
    help="Make an exact copy in an empty store: every number, id and time is kept, and every gap.",
)
@click.option(
    "--no-stream",
    metavar="NAME",
    callback=_usable,
    help="Put events of no stream, as other tools have, into stream NAME.",
)
@click.option("--no-type", metavar="NAME", callback=_usable, help="Give events without a type the type NAME.")
@click.option("--dollar-prefix", metavar="TEXT", callback=_usable, help="Put TEXT before stream ids that begin with $.")
@click.option(
    "--from-kurrent",
    is_flag=True,
    help="Take events of KurrentDB (EventStoreDB): lines from its Python client, or entries of its Atom feeds.",
)
@json_option
@partial_option
@database_option
def command(
    dsn: str | None,
    file: str,
    keep_global_seq: bool,
    renumber: bool,
    faithful: bool,
    no_stream: str | None,
    no_type: str | None,
    dollar_prefix: str | None,
    from_kurrent: bool,
    as_json: bool,
) -> None:
    """Store the events of FILE (- is stdin), NDJSON as esx export writes it, every digit kept.

    FILE may be compressed with gzip, zstd, xz or bzip2, and in UTF-16: its first bytes tell.

    A line needs stream_id, event_type and data. Optional are metadata; created_at (default: now); stream_seq, in all
    lines or in none (default: counted per stream from 0 on); and event_id (default: made from the rest of the line,
    the same every time). The order of the lines becomes the global order, with new global_seq unless they are kept.
    Within a stream, stream_seq must go on without a hole from what is stored.

    Lines are stored in chunks, each all or nothing. Events that are stored already are skipped, so after an
    interruption run the same import again: it goes on where it was. Of a chunk with a bad line nothing is stored.

    An export of another tool's store is taken into esx's own table. Where its streams begin at 1, as the lines say,
    stream_seq counts from 0; --renumber also closes holes. At the end stderr says what is not as it was, and how often.
    It exits with 4 if payloads are missing.

    With --from-kurrent a line is a RecordedEvent of kurrentdbclient, or an entry of an Atom feed with embed=body
    (docs/eventstoredb.md). Ids, types, times, order and versions are kept; KurrentDB's own events are left out.
    """
    if faithful and renumber:
        raise click.UsageError("--faithful keeps stream_seq as it is: leave --renumber out")
    if from_kurrent and (faithful or keep_global_seq):
        name = "--faithful" if faithful else "--keep-global-seq"
        raise click.UsageError(
            f"--from-kurrent gives new numbers, as positions there are places in a log: leave {name} out"
        )
    reader = _Reader(file)
    last: list[Imported] = []

    def on_progress(done: Imported) -> None:
        last[:] = [done]
        # The share of the file that has been read, which is somewhat ahead of what is stored.
        meter.update(done.stored + done.skipped, reader.read / reader.size if reader.size else None)

    async def work(store: EventStore) -> Imported:
        async with contextlib.aclosing(reader.pieces()) as pieces:
            return await store.import_ndjson(
                pieces,
                keep_global_seq=keep_global_seq,
                renumber=renumber,
                faithful=faithful,
                no_stream=no_stream,
                no_type=no_type,
                dollar_prefix=dollar_prefix,
                from_kurrent=from_kurrent,
                on_progress=on_progress,
            )

    try:
        with Meter() as meter:
            done = with_store(dsn, work)
    except Unreadable as error:
        from esx.store.bulk.import_ import Imported, stored_before

        far = stored_before(last[0] if last else Imported(0, 0, 0))
        raise click.ClickException(f"{file} cannot be read: {error}; {far}") from None
    except BaseException as error:
        _say_how_far(error, last)
        raise
    if as_json:
        OutputLines().value({"stored": done.stored, "skipped": done.skipped, "changed": done.changes.counted()})
    else:
        skipped = f", {counted(done.skipped, 'was', 'were')} there already" if done.skipped else ""
        kept = "; global_seq, stream_seq, created_at and event_id are as they were" if faithful else ""
        OutputLines().text(f"imported {counted(done.stored, 'event')}{skipped}{kept}")
    for line in done.changes.told():
        narrate(line)
    if done.changes.lost:
        mark_incomplete()


def _say_how_far(error: BaseException, last: list[Imported]) -> None:
    """Say what an interrupted import has stored, unless the error says so itself."""
    from esx.store.bulk.import_ import ImportFailed, stored_before

    if last and not isinstance(error, ImportFailed):
        narrate(stored_before(last[0]))


class _Reader:
    """Reads a file or stdin in a thread, so that a silent pipe holds up neither the import nor its Ctrl-C.

    `size` is the length in bytes, None if unknown, and `read` how many have been read. Compressed files are unpacked.
    """

    def __init__(self, file: str) -> None:
        try:
            # A descriptor of its own: the thread may still be reading when the interpreter closes stdin.
            self._descriptor = os.dup(sys.stdin.fileno()) if file == "-" else os.open(file, os.O_RDONLY)
            status = os.fstat(self._descriptor)
            if stat.S_ISDIR(status.st_mode):
                os.close(self._descriptor)
                raise IsADirectoryError(21, "Is a directory")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise click.BadParameter(f"{file!r}: {reason}", param_hint="FILE") from None
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.read = 0

    def _raw(self, stopped: threading.Event) -> Iterator[bytes]:
        while not stopped.is_set() and (piece := os.read(self._descriptor, _PIECE)):
            self.read += len(piece)
            yield piece

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        room = threading.Semaphore(_PIECES_AHEAD)
        stopped = threading.Event()

        def read() -> None:
            # The loop may have ended while this waited for data.
            with contextlib.suppress(RuntimeError):
                end: bytes | Exception = b""
                try:
                    for piece in plain(self._raw(stopped)):
                        if piece:
                            loop.call_soon_threadsafe(queue.put_nowait, piece)
                            room.acquire()
                        if stopped.is_set():
                            break
                except Exception as error:
                    end = error
                loop.call_soon_threadsafe(queue.put_nowait, end)
            os.close(self._descriptor)

        threading.Thread(target=read, name="esx-import-reader", daemon=True).start()
        try:
            while piece := await queue.get():
                if isinstance(piece, Exception):
                    raise piece
                room.release()
                yield piece
        finally:
            stopped.set()
            room.release()

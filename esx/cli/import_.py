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

from esx.cli.common import Lines, database_option, json_option, narrate, with_store
from esx.cli.decoding import Unreadable, plain
from esx.cli.meter import Meter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from esx.store import EventStore, Imported

_PIECE = 2**20
_PIECES_AHEAD = 4


@click.command(name="import")
@click.argument("file", metavar="FILE|-")
@click.option(
    "--keep-global-seq",
    is_flag=True,
    help="Keep the global_seq of the lines, which must ascend and be above all that the store has handed out.",
)
@click.option("--renumber", is_flag=True, help="Count stream_seq anew in each stream, for slices that have holes.")
@click.option(
    "--faithful",
    is_flag=True,
    help="Make of an empty store the one that was exported: every number, id and time is kept, and every gap.",
)
@json_option
@database_option
def command(dsn: str | None, file: str, keep_global_seq: bool, renumber: bool, faithful: bool, as_json: bool) -> None:
    """Store the events of FILE (- is stdin), NDJSON as esx export writes it, every digit kept.

    FILE may be compressed with gzip, zstd, xz or bzip2, and in UTF-16: its first bytes tell.

    A line needs stream_id, event_type and data. Optional are metadata; created_at (default: now); stream_seq, in all
    lines or in none (default: counted per stream from 0 on); and event_id (default: made from the rest of the line,
    the same every time). The order of the lines becomes the global order; global_seq is assigned anew unless it is to
    be kept. Within a stream, stream_seq must go on without a hole from what is stored.

    Chunks of lines are stored one after the other, each all or nothing. What is stored already is skipped, so after
    any interruption run the same import again: it goes on where it was. Of a chunk with a bad line nothing is stored.
    """
    if faithful and renumber:
        raise click.UsageError("--faithful keeps stream_seq as it is: leave --renumber out")
    reader = _Reader(file)
    last: list[Imported] = []

    def on_progress(done: Imported) -> None:
        last[:] = [done]
        # By what has been read of the file, compressed or not: somewhat ahead of what is stored.
        meter.update(done.stored + done.skipped, reader.read / reader.size if reader.size else None)

    async def work(store: EventStore) -> Imported:
        async with contextlib.aclosing(reader.pieces()) as pieces:
            return await store.import_ndjson(
                pieces,
                keep_global_seq=keep_global_seq,
                renumber=renumber,
                faithful=faithful,
                on_progress=on_progress,
            )

    try:
        with Meter() as meter:
            done = with_store(dsn, work)
    except Unreadable as error:
        from esx.store.bulk_import import Imported, stored_before

        far = stored_before(last[0] if last else Imported(0, 0, 0))
        raise click.ClickException(f"{file} cannot be read: {error}; {far}") from None
    except BaseException as error:
        _say_how_far(error, last)
        raise
    if as_json:
        Lines().json(f'{{"stored": {done.stored}, "skipped": {done.skipped}}}')
    else:
        skipped = f", {done.skipped:,} were there already" if done.skipped else ""
        kept = "; global_seq, stream_seq, created_at and event_id are as they were" if faithful else ""
        Lines().text(f"imported {done.stored:,} events{skipped}{kept}")


def _say_how_far(error: BaseException, last: list[Imported]) -> None:
    """Say what an import that was cut short has stored, unless the error says it itself."""
    from esx.store.bulk_import import ImportFailed, stored_before

    if last and not isinstance(error, ImportFailed):
        narrate(stored_before(last[0]))


class _Reader:
    """Reads a file or stdin in a thread, so that a silent pipe holds up neither the import nor its Ctrl-C.

    `size` is the length in bytes, None if unknown, and `read` how many have been read. What is compressed is unpacked.
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

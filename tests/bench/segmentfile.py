"""An append-only log in chunk files with an index of its streams: what a table is compared with, and no product.

It has the parts that KurrentDB's documentation names, in their simplest form. A record's position is its place in the
log. A table of the index holds 24 bytes for each event (hash of the stream, version, position), sorted, beside a Bloom
filter of its streams; what is new is in memory, and two tables of one level become one of the next. Scavenging writes a
chunk again without what was deleted; the records keep their positions, and a map says where they are now. What opens a
log after a crash is left out, so is all locking.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import zlib
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from io import FileIO
    from pathlib import Path

# Size, checksum of what follows, position, version, microseconds, id, and the lengths of stream, type, data, metadata.
_HEAD = struct.Struct("<IIQQQ16sHHII")
# Big-endian, so that entries sort as their bytes do.
_ENTRY = struct.Struct(">8sQQ")
_MOVED = struct.Struct("<II")
# Bits of a Bloom filter for each entry: a hundredth of the entries, as KurrentDB's documentation says of its own.
_BLOOM_BITS = 2


class Record(NamedTuple):
    """An event: `version` counts from 0 in its stream, `created` are microseconds since 1970."""

    stream: bytes
    version: int
    type: bytes
    data: bytes
    metadata: bytes
    created: int
    id: bytes


class SegmentFile:
    """The log in `directory`: chunks of `chunk` bytes, and the last `memtable` entries of the index in memory.

    `written` counts the bytes of log and index that were written, also those of merged tables.
    """

    def __init__(self, directory: Path, *, chunk: int, memtable: int) -> None:
        self._directory = directory
        self._chunk = chunk
        self._memtable = memtable
        self._new: list[bytes] = []
        self._tables: list[_Table] = []
        self._made = 0
        self._moved: dict[int, bytes] = {}
        self._chunks: list[Path] = []
        self._room = 0
        self.written = 0
        self._file: FileIO | None = None
        self._begin_chunk()

    def _begin_chunk(self) -> None:
        self.close()
        path = self._directory / f"chunk-{len(self._chunks):06}"
        self._chunks.append(path)
        self._file = path.open("ab", buffering=0)
        self._room = self._chunk

    def append(self, records: Iterable[Record]) -> None:
        """Write records to the log and to the index; `sync` makes them last."""
        out: list[bytes] = []
        for record in records:
            size = _HEAD.size + len(record.stream) + len(record.type) + len(record.data) + len(record.metadata)
            if size > self._room:
                self._write(out)
                self._begin_chunk()
            position = len(self._chunks) * self._chunk - self._room
            self._room -= size
            out.append(_packed(record, position))
            self._new.append(_ENTRY.pack(_hash(record.stream), record.version, position))
        self._write(out)
        if len(self._new) >= self._memtable:
            self._persist()

    def _write(self, out: list[bytes]) -> None:
        text = b"".join(out)
        assert self._file is not None
        self._file.write(text)
        self.written += len(text)
        out.clear()

    def sync(self) -> None:
        """Wait until the log is on disk."""
        assert self._file is not None
        os.fdatasync(self._file.fileno())

    def _persist(self) -> None:
        self._add(sorted(self._new), 1)
        self._new = []
        while len(self._tables) > 1 and self._tables[-1].level == self._tables[-2].level:
            last, before = self._tables.pop(), self._tables.pop()
            self._add(sorted([*before.entries(), *last.entries()]), last.level + 1)
            last.remove()
            before.remove()

    def _add(self, entries: list[bytes], level: int) -> None:
        self._made += 1
        self._tables.append(_Table.write(self._directory / f"index-{self._made:06}", entries, level))
        self.written += self._tables[-1].size

    def read_all(self) -> Iterator[Record]:
        """Yield all records in the order of the log, each checked."""
        for path in self._chunks:
            for _, record in _records(path.read_bytes()):
                yield record

    def read_stream(self, stream: bytes) -> list[Record]:
        """Return the records of a stream in the order of their versions, found by the index."""
        key = _hash(stream)
        found = [entry for entry in self._new if entry.startswith(key)]
        for table in self._tables:
            found += table.of(key)
        out = []
        for entry in sorted(found):
            record = self._at(_ENTRY.unpack(entry)[2])
            if record.stream == stream:  # two ids can have one hash
                out.append(record)
        return out

    def _at(self, position: int) -> Record:
        number, offset = divmod(position, self._chunk)
        moved = self._moved.get(number)
        if moved is not None:
            places = range(len(moved) // _MOVED.size)
            at = bisect_left(places, offset, key=lambda n: _MOVED.unpack_from(moved, n * _MOVED.size)[0])
            offset = _MOVED.unpack_from(moved, at * _MOVED.size)[1]
        with self._chunks[number].open("rb", buffering=0) as file:
            size = _HEAD.unpack(os.pread(file.fileno(), _HEAD.size, offset))[0]
            return next(_records(os.pread(file.fileno(), size, offset)))[1]

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the log, with its maps, and those of the index."""
        log = sum(path.stat().st_size for path in self._chunks) + sum(map(len, self._moved.values()))
        return log, sum(table.size for table in self._tables) + len(self._new) * _ENTRY.size

    def chunks(self) -> list[Path]:
        """Return the files of the log, in order."""
        return list(self._chunks)

    def rebuild_index(self) -> None:
        """Make the index anew from the log alone."""
        for table in self._tables:
            table.remove()
        self._tables, self._new = [], []
        for path in self._chunks:
            for position, record in _records(path.read_bytes()):
                self._new.append(_ENTRY.pack(_hash(record.stream), record.version, position))
                if len(self._new) >= self._memtable:
                    self._persist()

    def scavenge(self, gone: Collection[bytes]) -> None:
        """Write chunks and tables again without the records of the streams `gone`."""
        self._begin_chunk()
        for number, path in enumerate(self._chunks[:-1]):
            text = path.read_bytes()
            kept, moved = bytearray(), bytearray()
            for position, record in _records(text):
                if record.stream not in gone:
                    moved += _MOVED.pack(position - number * self._chunk, len(kept))
                    kept += _packed(record, position)
            if len(kept) < len(text):
                self._replace(path, bytes(kept))
                self._moved[number] = bytes(moved)
                # The map is a part of the chunk there; here it is a file beside it.
                self._replace(path.with_suffix(".map"), bytes(moved))
        hashes = {_hash(stream) for stream in gone}
        self._new = [entry for entry in self._new if entry[:8] not in hashes]
        tables, self._tables = self._tables, []
        for table in tables:
            self._add([entry for entry in table.entries() if entry[:8] not in hashes], table.level)
            table.remove()

    def _replace(self, path: Path, text: bytes) -> None:
        self.written += _durable(path.with_suffix(".new"), text)
        path.with_suffix(".new").replace(path)

    def close(self) -> None:
        """Sync and close the log."""
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None


class _Table:
    """A sorted table of the index, and its Bloom filter. `size` is that of both, in bytes."""

    def __init__(self, path: Path, level: int, bloom: bytes) -> None:
        self._path = path
        self._bloom = bloom
        self.level = level
        with path.open("rb") as file:
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.size = len(self._text) + len(bloom)

    @classmethod
    def write(cls, path: Path, entries: list[bytes], level: int) -> _Table:
        bloom = bytearray(len(entries) * _BLOOM_BITS // 8 + 8)
        for key in {entry[:8] for entry in entries}:
            for bit in _bits(key, len(bloom)):
                bloom[bit >> 3] |= 1 << (bit & 7)
        # A file that is mapped cannot be empty.
        _durable(path, b"".join(entries) or bytes(_ENTRY.size))
        _durable(path.with_suffix(".bloom"), bytes(bloom))
        return cls(path, level, bytes(bloom))

    def entries(self) -> Iterator[bytes]:
        for at in range(0, len(self._text), _ENTRY.size):
            yield self._text[at : at + _ENTRY.size]

    def of(self, key: bytes) -> Iterator[bytes]:
        if not all(self._bloom[bit >> 3] & 1 << (bit & 7) for bit in _bits(key, len(self._bloom))):
            return
        count = len(self._text) // _ENTRY.size
        at = bisect_left(range(count), key, key=lambda n: self._text[n * _ENTRY.size : n * _ENTRY.size + 8])
        while (entry := self._text[at * _ENTRY.size : (at + 1) * _ENTRY.size]).startswith(key):
            yield entry
            at += 1

    def remove(self) -> None:
        self._text.close()
        self._path.unlink()
        self._path.with_suffix(".bloom").unlink()


def _hash(stream: bytes) -> bytes:
    return hashlib.blake2b(stream, digest_size=8).digest()


def _bits(key: bytes, size: int) -> Iterator[int]:
    one, other = struct.unpack("<II", key)
    return ((one + n * other) % (size * 8) for n in range(3))


def _packed(record: Record, position: int) -> bytes:
    stream, version, kind, data, metadata, created, event_id = record
    text = b"".join((stream, kind, data, metadata))
    head = _HEAD.pack(
        *(_HEAD.size + len(text), 0, position, version, created, event_id),
        *(len(stream), len(kind), len(data), len(metadata)),
    )
    return head[:4] + zlib.crc32(text, zlib.crc32(head[8:])).to_bytes(4, "little") + head[8:] + text


def _records(text: bytes) -> Iterator[tuple[int, Record]]:
    """Yield the records of a chunk with their positions. Raises ValueError for one that is damaged."""
    view = memoryview(text)
    at = 0
    while at < len(text):
        size, checksum, position, version, created, event_id, *lengths = _HEAD.unpack_from(text, at)
        if zlib.crc32(view[at + 8 : at + size]) != checksum:
            raise ValueError(f"the record at {at} is damaged")
        begin = at + _HEAD.size
        parts = []
        for length in lengths:
            parts.append(text[begin : begin + length])
            begin += length
        stream, kind, data, metadata = parts
        yield position, Record(stream, version, kind, data, metadata, created, event_id)
        at += size


def _durable(path: Path, text: bytes) -> int:
    with path.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return len(text)

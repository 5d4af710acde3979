"""Reads a capsule, which may come from anybody: within bounds, from memory only, and nothing in it is run.

No name in the file becomes a path: members are known by their names, and any other is refused. Sizes are counted while
a member is unpacked, because those that the file tells can be wrong.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from esx.capsule.format import (
    CONTENTS,
    EVENTS,
    FORMAT,
    KINDS,
    MEMBERS,
    SUMS,
    BadCapsule,
    CapsuleBounds,
    CapsuleInfo,
    EventLine,
)
from esx.store.bulk.jsontext import split_members
from esx.text import visible

_PIECE = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
# The record at the end of a zip, with what it says in these positions: how many members, and the size of their list.
_END = struct.Struct("<4s4H2LH")
_END_MARK, _WIDE_MARK, _WIDE_SIZE = b"PK\x05\x06", b"PK\x06\x07", 20
_LONGEST_END = _END.size + 2**16
_MOST_LISTED = 2**14
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, ValueError, RuntimeError)
_SHOWN = 200
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
"""Times beyond are none that a clock of a recording can go on from."""
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Capsule:
    """An open capsule: `info` is what it says of itself. Its methods block; each may be called many times.

    Use it in a ``with`` block. All of them raise BadCapsule.
    """

    info: CapsuleInfo

    def __init__(self, path: Path, *, bounds: CapsuleBounds | None = None) -> None:
        """Open a file. Raises BadCapsule, and OSError where the file cannot be read."""
        self.path = path
        self.bounds = bounds or CapsuleBounds()
        self._shown = visible(str(path), limit=_SHOWN)
        if not path.is_file() and path.exists() and not path.is_dir():
            # A pipe would be waited for, and cannot be read twice.
            raise self.bad("it is no regular file")
        self._file: IO[bytes] = path.open("rb")
        try:
            self._zip = self._open()
            self.info = self._contents()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()

    def bad(self, reason: str) -> BadCapsule:
        """Return the error that this file is no usable capsule."""
        return BadCapsule(f"{self._shown} is no capsule that can be used: {reason}")

    # -- the zip -----------------------------------------------------------------------------------------------

    def _open(self) -> zipfile.ZipFile:
        self._check_list()
        try:
            archive = zipfile.ZipFile(self._file)
        except _BROKEN as error:
            raise self.bad(f"the zip is damaged ({error})") from None
        names = set()
        for member in archive.infolist():
            name = visible(member.filename, limit=80)
            if member.filename not in (*MEMBERS, CONTENTS, SUMS):
                raise self.bad(f"it has a member {name}, which capsules do not have")
            if member.filename in names:
                raise self.bad(f"it has {name} twice")
            if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
                raise self.bad(f"{name} is encrypted, or packed in a way that capsules are not")
            most = self.bounds.most(member.filename)
            if member.file_size > most:
                raise self.bad(f"{name} has {member.file_size:,} bytes, and at most {most:,} are read")
            if member.file_size > self.bounds.small and member.file_size > self.bounds.ratio * member.compress_size:
                raise self.bad(f"{name} is more than {self.bounds.ratio} times as large as it is packed")
            names.add(member.filename)
        for name in (*MEMBERS, CONTENTS, SUMS):
            if name not in names:
                raise self.bad(f"{name} is missing")
        return archive

    def _check_list(self) -> None:
        """Look at the end of the zip first: its list of members, which is read at once, may be of any length."""
        size = self._file.seek(0, 2)
        if size > self.bounds.file:
            raise self.bad(f"it has {size:,} bytes, and at most {self.bounds.file:,} are read")
        begin = self._file.seek(max(size - _LONGEST_END - _WIDE_SIZE, 0))
        tail = self._file.read(_LONGEST_END + _WIDE_SIZE)
        at = len(tail) - _END.size
        if at < 0 or tail[at : at + 4] != _END_MARK or tail[at + 20 :] != b"\0\0":
            # With a comment; the last mark is the one that counts.
            at = tail.rfind(_END_MARK)
        if at < 0 or at + _END.size > len(tail):
            raise self.bad("it is no zip, or was cut short")
        _, _, _, _, members, listed, offset, _ = _END.unpack_from(tail, at)
        if members > len(MEMBERS) + 2 or listed > _MOST_LISTED or _WIDE_MARK in tail[max(at - _WIDE_SIZE, 0) : at]:
            raise self.bad("its list of members is longer than that of a capsule")
        if offset + listed != begin + at:
            raise self.bad("there is something before it, or behind its list of members")

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a member."""
        left = self.bounds.most(name)
        try:
            with self._zip.open(name) as member:
                while piece := member.read(_PIECE):
                    left -= len(piece)
                    if left < 0:
                        raise self.bad(f"{name} is larger than it says")
                    yield piece
        except _BROKEN as error:
            raise self.bad(f"{name} is damaged ({visible(str(error), limit=_SHOWN)})") from None

    def lines(self, name: str) -> Iterator[list[bytes]]:
        """Yield the lines of a member without their ends, some at a time."""
        torn: list[bytes] = []
        length = count = 0
        for piece in self.pieces(name):
            whole = piece.split(b"\n")
            rest = whole.pop()
            if whole:
                whole[0] = b"".join((*torn, whole[0]))
                torn, length = [], 0
                count += len(whole)
                if count > self.bounds.lines:
                    raise self.bad(f"{name} has more than {self.bounds.lines:,} lines")
                yield whole
            if rest:
                torn.append(rest)
                length += len(rest)
                if length > self.bounds.longest(name):
                    raise self.bad(f"line {count + 1} of {name} has more than {self.bounds.longest(name):,} bytes")
        if torn:
            raise self.bad(f"{name} ends within a line")

    # -- what is in it -----------------------------------------------------------------------------------------

    def _contents(self) -> CapsuleInfo:
        text = b"".join(self.pieces(CONTENTS))
        try:
            found = msgspec.json.decode(text)
            if not isinstance(found, dict) or found.get("kind") != "capsule":
                raise self.bad(f"{CONTENTS} is not that of a capsule")
            if found.get("format") != FORMAT:
                shown = visible(str(found.get("format")), limit=40)
                raise self.bad(f"its format is {shown}, and this esx reads {FORMAT}: use the esx that made it")
            info = msgspec.convert(found, CapsuleInfo)
        except (ValueError, RecursionError) as error:
            raise self.bad(f"{CONTENTS}: {visible(str(error), limit=_SHOWN)}") from None
        if set(info.members) != set(MEMBERS):
            raise self.bad(f"{CONTENTS} does not list what is in the file")
        if info.ended < info.begun:
            raise self.bad("it ended before it began")
        if not all(_EARLIEST <= at <= _LATEST for at in (info.begun, info.ended, info.since or info.begun)):
            raise self.bad("it says that it was recorded in another age")
        return info

    def records(self, name: str) -> Iterator[Any]:
        """Yield the values of a member's lines, of the type in `KINDS`."""
        return (value for value, _ in self.decoded(name))

    def decoded(self, name: str) -> Iterator[tuple[Any, bytes]]:
        """Yield the values of a member's lines, of the type in `KINDS`, each with its line."""
        decode = msgspec.json.Decoder(KINDS[name]).decode
        number = 0
        last: datetime | None = None
        for lines in self.lines(name):
            for number, line in enumerate(lines, number + 1):  # noqa: B020 - goes on from where it is
                try:
                    value = decode(line)
                    if _ODD.search(line):
                        _check(value)
                except (ValueError, RecursionError) as error:
                    raise self.bad(f"line {number} of {name}: {visible(str(error), limit=_SHOWN)}") from None
                at = getattr(value, "at", None)
                if at is not None and not _EARLIEST <= at <= _LATEST:
                    raise self.bad(f"line {number} of {name} is of another age")
                if at is not None and last is not None and at < last:
                    raise self.bad(f"line {number} of {name} is earlier than the one before")
                last = at
                yield value, line

    def events(self) -> Iterator[list[tuple[EventLine, bytes]]]:
        """Yield the events in ascending global_seq, as far as they are looked into, each with its line."""
        decode = msgspec.json.Decoder(EventLine).decode
        number, last = 0, -1
        for lines in self.lines(EVENTS):
            found = []
            for number, line in enumerate(lines, number + 1):  # noqa: B020 - goes on from where it is
                try:
                    event = _event(decode, line)
                except (ValueError, RecursionError) as error:
                    raise self.bad(f"line {number} of {EVENTS}: {visible(str(error), limit=_SHOWN)}") from None
                if event.global_seq <= last:
                    raise self.bad(f"line {number} of {EVENTS}: global_seq {event.global_seq} does not ascend")
                last = event.global_seq
                found.append((event, line))
            yield found

    def sums(self) -> dict[str, str]:
        """Return the sums that the file gives for its members."""
        try:
            lines = b"".join(self.pieces(SUMS)).decode("ascii").splitlines()
            return {name: told for told, _, name in (line.partition("  ") for line in lines)}
        except ValueError:
            raise self.bad(f"{SUMS} is no list of sums") from None

    def verify(self) -> list[str]:
        """Read all of it, and return in a line each what is not as the file says; none if it is whole.

        Sums find damage, not ill will: who changes a capsule can write new ones.
        """
        wrong = []
        told = self.sums()
        for name in (*MEMBERS, CONTENTS):
            digest, size, lines = hashlib.sha256(), 0, 0
            for piece in self.pieces(name):
                digest.update(piece)
                size += len(piece)
                lines += piece.count(b"\n")
            found = digest.hexdigest()
            if told.get(name) != found:
                wrong.append(f"{name} has another SHA-256 sum than {SUMS} says")
            facts = self.info.members.get(name)
            if facts is not None and (facts.bytes, facts.lines, facts.sha256) != (size, lines, found):
                wrong.append(f"{name} is not what {CONTENTS} says")
        count, first, last = 0, None, None
        for few in self.events():
            count += len(few)
            first = few[0][0].global_seq if first is None and few else first
            last = few[-1][0].global_seq if few else last
        if (count, first, last) != (self.info.events, self.info.first, self.info.last):
            wrong.append(f"{EVENTS} has other events than {CONTENTS} says")
        for name in KINDS:
            for _ in self.records(name):
                pass
        return wrong


def _event(decode: Callable[[bytes], EventLine], line: bytes) -> EventLine:
    try:
        return decode(line)
    except RecursionError:
        # A payload may be nested deeper than Python goes; it is not looked into.
        members = split_members(line)
        payloads: dict[str, object] = {
            name: msgspec.Raw(members.pop(name)) for name in ("data", "metadata") if name in members
        }
        texts = {name: msgspec.json.decode(text) for name, text in members.items()}
        fields = payloads | texts
        return msgspec.convert(fields, EventLine)


def _check(value: object) -> None:
    """Raise ValueError for a number or a time anywhere in a value that PostgreSQL or a clock could not have."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, int | float):
            if not -_LARGEST <= each < _LARGEST:
                raise ValueError("it has a number that is too large")
        elif isinstance(each, datetime):
            if each.tzinfo is None:
                raise ValueError("it has a time without a zone")
            if not _FIRST <= each <= _LAST:
                raise ValueError("it has a time that is none in UTC")
        elif isinstance(each, tuple | list):
            todo += each
        elif isinstance(each, dict):
            todo += each
            todo += each.values()
        elif dataclasses.is_dataclass(each):
            todo += [getattr(each, field.name) for field in dataclasses.fields(each)]


_LARGEST = 2**63
# Where a line has none of these, it has no such number or time either: most lines need not be taken apart.
_ODD = re.compile(rb'\\|\d{19}|\d[eE][+-]?\d\d|"\d{4}-\d\d-[^"]*[^Z"]"|"(?!19|2)\d{4}-\d\d-')

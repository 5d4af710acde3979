"""Writes a capsule: the events as they come, what was seen beside at the end, then the contents and the sums."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import zipfile
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Self

from esx.capsule.format import CONTENTS, EVENTS, MEMBERS, SUMS, CapsuleInfo, MemberFacts, encode
from esx.capsule.masking import Masker

_LEVEL = 1
"""How hard zlib tries: more would take several times as long as reading the events."""
_PIECE = 2**20
_IN_MEMORY = 2**22


class _Member:
    """A member that is being written: bytes go on, lines and the sum are counted."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sum = hashlib.sha256()
        self.bytes = 0
        self.lines = 0

    def write(self, piece: bytes, lines: int | None = None) -> None:
        self._file.write(piece)
        self._sum.update(piece)
        self.bytes += len(piece)
        self.lines += piece.count(b"\n") if lines is None else lines

    def close(self) -> MemberFacts:
        self._file.close()
        return MemberFacts(self.bytes, self.lines, self._sum.hexdigest())


class CapsuleWriter:
    """Writes to an open file. Its methods block, and are called one at a time, from any thread.

    Use it in a ``with`` block; without `finish` the file is no capsule. With a `masker` the events are kept, masked, in
    a file without a name until all values are known.
    """

    def __init__(self, file: IO[bytes], masker: Masker | None = None) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
        self._masker = masker
        self._kept: IO[bytes] | None = None if masker is None else tempfile.TemporaryFile()  # noqa: SIM115
        self._events = _Member(self._kept or self._open(EVENTS))
        self._beside: dict[str, IO[bytes]] = {
            # Removed when it is closed, also if the process is killed.
            name: tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - for as long as this writes
            for name in MEMBERS
            if name != EVENTS
        }

    def _open(self, name: str) -> IO[bytes]:
        # By its name: a ZipInfo would be compressed with zlib's own level. How much it will be is not known.
        return self._zip.open(name, "w", force_zip64=name == EVENTS)

    def events(self, lines: bytes, count: int) -> None:
        """Write so many whole lines of events."""
        self._events.write(lines if self._masker is None else self._masker.first(lines), count)

    @property
    def event_bytes(self) -> int:
        """How many bytes of events have been written."""
        return self._events.bytes

    @property
    def event_count(self) -> int:
        """How many events have been written."""
        return self._events.lines

    @property
    def packed_bytes(self) -> int:
        """How many bytes of the file have been written; those of masked events come at the end."""
        return self._file.tell()

    def beside_bytes(self, name: str) -> int:
        """How many bytes one of the other members has by now."""
        return self._beside[name].tell()

    def add(self, name: str, line: bytes) -> None:
        """Add a line of `encode` to one of the other members."""
        self._beside[name].write(line)

    def members(self) -> dict[str, MemberFacts]:
        """End all members, and return what is in them: `finish` comes next."""
        if self._masker is not None:
            self._masker.settle()
        facts = {} if self._kept is not None else {EVENTS: self._events.close()}
        for name, kept in {**({} if self._kept is None else {EVENTS: self._kept}), **self._beside}.items():
            kept.seek(0)
            facts[name] = self._copy(name, iter(lambda kept=kept: kept.readlines(_PIECE), []))  # type: ignore[misc]
        return facts

    def finish(self, info: CapsuleInfo) -> None:
        """Write the contents and the sums: the capsule is complete."""
        facts = {**info.members, CONTENTS: self._copy(CONTENTS, [[encode(info)]])}
        self._copy(SUMS, [[f"{fact.sha256}  {name}\n".encode() for name, fact in facts.items()]])
        self._zip.close()

    def _copy(self, name: str, pieces: Iterable[list[bytes]]) -> MemberFacts:
        member = _Member(self._open(name))
        try:
            for lines in pieces:
                if self._masker is None or name == SUMS:
                    member.write(b"".join(lines))
                else:
                    member.write(self._masker.second(name, (line.removesuffix(b"\n") for line in lines)))
        finally:
            # One that is left open could not be closed with the zip.
            facts = member.close()
        return facts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for kept in (*self._beside.values(), *filter(None, [self._kept])):
            kept.close()
        # What is written now, without `finish`, is thrown away.
        with contextlib.suppress(OSError, ValueError):
            self._events.close()
        with contextlib.suppress(OSError, ValueError):
            self._zip.close()

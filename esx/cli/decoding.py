"""Decompressing and decoding what an import reads into UTF-8; the first bytes tell its format.

This is done piece by piece, and no piece that is returned is large, even where a few bytes stand for very many.
"""

import bz2
import codecs
import importlib
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_PIECE = 2**20
_SNIFFED = 6
_BOMS = (  # the longer ones first, as one begins like another
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    # JSON holds no zero byte.
    (b"{\0\0\0", "utf-32-le"),
    (b"\0\0\0{", "utf-32-be"),
    (b"{\0", "utf-16-le"),
    (b"\0{", "utf-16-be"),
)


class Unreadable(Exception):
    """The input is not in the format that its first bytes announce. The message is one line with the reason."""


class _Format(NamedTuple):
    name: str
    magic: bytes
    decompressor: Callable[[], Any]
    """Makes an object with `decompress(data, max_length)`, `needs_input`, `eof` and `unused_data`."""


class _Gzip:
    """A decompressor of one gzip member, with the interface of those of bz2 and lzma."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


def _zstd() -> Any:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return importlib.import_module(name).ZstdDecompressor()
    except ImportError:
        raise Unreadable(f"it is compressed with zstd, and {name} is not installed: use zstd -dc FILE | ...") from None


_FORMATS = (
    _Format("gzip", b"\x1f\x8b", _Gzip),
    _Format("zstd", b"\x28\xb5\x2f\xfd", _zstd),
    *(_Format("zstd", bytes([0x50 + n]) + b"\x2a\x4d\x18", _zstd) for n in range(16)),
    _Format("xz", b"\xfd7zXZ\0", lzma.LZMADecompressor),
    _Format("bzip2", b"BZh", bz2.BZ2Decompressor),
)


def plain(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of `pieces`, decompressed and as UTF-8. Raises Unreadable."""
    head, pieces = _peek(pieces)
    if head.startswith(b"PK\x03\x04"):
        raise Unreadable("it is a zip archive: unzip -p FILE | ...")
    for form in _FORMATS:
        if head.startswith(form.magic):
            head, pieces = _peek(_decompressed(pieces, form))
            break
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return _utf8(pieces, encoding)
    return pieces


def _peek(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes, and an iterator over all of them."""
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= _SNIFFED:
            break

    def all_of_them() -> Iterator[bytes]:
        if first:
            yield first
        yield from pieces

    return first[:_SNIFFED], all_of_them()


def _decompressed(pieces: Iterator[bytes], form: _Format) -> Iterator[bytes]:
    stream = form.decompressor()
    begun = False
    try:
        for piece in pieces:
            data = piece
            while data or not stream.needs_input:
                if stream.eof:
                    # Compressed files may be concatenated; some are padded with zeros.
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    stream, begun = form.decompressor(), False
                out = stream.decompress(data, _PIECE)
                begun = True
                data = stream.unused_data if stream.eof else b""
                if out:
                    yield out
    except Exception as error:
        damaged = isinstance(error, zlib.error | OSError | lzma.LZMAError | EOFError | ValueError)
        if not damaged and type(error).__name__ != "ZstdError":
            raise
        reason = " ".join(str(error).split())
        raise Unreadable(f"its {form.name} is damaged: {reason}") from None
    if begun and not stream.eof:
        raise Unreadable(f"its {form.name} ends too early: it was cut short")


def _utf8(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for piece in pieces:
            yield decoder.decode(piece).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        reason = getattr(error, "reason", error)
        raise Unreadable(f"it is not {encoding.upper()[:6]}, as it begins: {reason}") from None

"""Decompressing a payload, up to a bound: a few bytes can stand for very many."""

import importlib
import sys
import zlib
from collections.abc import Callable

from esx.payloads.limits import MOST_BYTES, Undecodable


def inflated(raw: bytes) -> bytes:
    """Return what zlib or gzip has compressed. Raises Undecodable where it is damaged or too large."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either of them
    try:
        found = stream.decompress(raw, MOST_BYTES)
    except zlib.error:
        raise Undecodable("it is damaged") from None
    return _checked(found, stream.eof, len(found) >= MOST_BYTES, stream.unused_data)


def _zstd(raw: bytes) -> bytes:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    module = importlib.import_module(name)
    # A frame may ask for gigabytes as its window.
    stream = module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: 23})
    try:
        found: bytes = stream.decompress(raw, MOST_BYTES)
    except module.ZstdError:
        raise Undecodable("it is damaged, or needs much memory") from None
    return _checked(found, stream.eof, len(found) >= MOST_BYTES, stream.unused_data)


def _checked(found: bytes, ended: bool, full: bool, more: bytes) -> bytes:
    if not ended:
        raise Undecodable(f"it has more than {MOST_BYTES:,} bytes" if full else "it ends too early")
    if more:
        raise Undecodable("more follows its end")
    return found


DECOMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"zlib": inflated, "gzip": inflated, "zstd": _zstd}
"""By the name that `looks_like` gives."""

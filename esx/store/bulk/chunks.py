"""Cuts the input of an import into lists of whole lines."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from dataclasses import dataclass

from esx.store.bulk.lines import BadLine

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ChunkBounds:
    """How many `lines` and about how many `bytes` an import stores in a transaction, and how long a line may be.

    PostgreSQL takes no longer value than `longest`, and a compressed file may hold anything.
    """

    lines: int = 10_000
    bytes: int = 2**23
    longest: int = 2**30


async def chunks(
    pieces: Iterable[bytes] | AsyncIterable[bytes], bounds: ChunkBounds
) -> AsyncGenerator[list[bytes], None]:
    """Yield the lines of `pieces`, which may be cut anywhere, in bounded lists.

    Raises BadLine for a line that is too long.
    """
    lines: list[bytes] = []
    size = 0
    torn: list[bytes] = []
    torn_size = passed = 0
    started = False
    source = aiter(pieces if isinstance(pieces, AsyncIterable) else _async(pieces))
    try:
        async for piece in source:
            whole = piece.split(b"\n")
            rest = whole.pop()
            if whole:
                whole[0] = b"".join((*torn, whole[0]))
                if not started:
                    whole[0] = whole[0].removeprefix(_BOM)
                    started = True
                torn = []
                torn_size = 0
                passed += len(whole)
                lines += whole
                size += len(piece) + len(whole[0])
            if rest:
                torn.append(rest)
                torn_size += len(rest)
                if torn_size > bounds.longest:
                    raise BadLine(
                        passed + 1, f"it has more than {bounds.longest:,} bytes, which PostgreSQL does not take"
                    )
            while len(lines) >= bounds.lines or (lines and size >= bounds.bytes):
                yield lines[: bounds.lines]
                del lines[: bounds.lines]
                size = 0
    finally:
        # An export that is not read to its end has to give its connection back.
        if isinstance(source, AsyncGenerator):
            await source.aclose()
    if torn:
        last = b"".join(torn)
        lines.append(last if started else last.removeprefix(_BOM))
    while lines:
        yield lines[: bounds.lines]
        del lines[: bounds.lines]


async def _async(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece

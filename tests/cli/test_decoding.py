"""Imports of what is compressed, or in another encoding."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import importlib
import lzma
import sys
from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx.cli.decoding import Unreadable, plain
from esx.store.bulk.chunks import ChunkBounds
from esx.store.bulk.import_ import ImportFailed
from tests.cli.support import Running, esx, ndjson, one_line_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esx import EventStore

pytestmark = pytest.mark.slow

MADE = {"ids_made": 12_000, "times_made": 12_000}
LINES = "".join(f'{{"stream_id": "s", "event_type": "T", "data": "é{n}"}}\n' for n in range(12_000))


def zstd(data: bytes) -> bytes:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    compressed = pytest.importorskip(name).compress(data)
    assert isinstance(compressed, bytes)
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "zstd": zstd, "xz": lzma.compress, "bzip2": bz2.compress,
}  # fmt: skip
formats = pytest.mark.parametrize("name", COMPRESS)


def read(data: bytes, size: int = 1000) -> bytes:
    return b"".join(plain(data[at : at + size] for at in range(0, len(data), size)))


@formats
@pytest.mark.parametrize("size", [1, 7, 2**20])
def test_pieces_may_be_cut_anywhere_and_parts_follow_each_other(name: str, size: int) -> None:
    one = COMPRESS[name](b'{"a": 1}\n')
    assert read(one, size) == b'{"a": 1}\n'
    assert read(one + one, size) == b'{"a": 1}\n' * 2
    assert read(one + bytes(20), size) == b'{"a": 1}\n'


@formats
def test_what_is_cut_short_or_damaged_is_said(name: str) -> None:
    whole = COMPRESS[name](LINES.encode())
    with pytest.raises(Unreadable, match=f"its {name} ends too early"):
        read(whole[:-20])
    with pytest.raises(Unreadable, match=f"its {name} is damaged"):
        read(whole + b"garbage that is no such thing")
    if name != "zstd":  # which keeps a checksum only where it is told to
        with pytest.raises(Unreadable, match=f"its {name} (is damaged|ends too early)"):
            read(whole[:200] + bytes(200) + whole[400:])


async def test_a_compressed_file_is_imported_and_one_that_is_cut_short_gone_on_with_when_it_is_whole(
    dsn18: str, store18: EventStore, tmp_path: Path
) -> None:
    path = tmp_path / "events.txt"  # whatever it is called
    whole = gzip.compress(LINES.encode())
    path.write_bytes(whole[:-10])
    error = one_line_error(esx("import", str(path), "-d", dsn18), 1)
    assert f"{path} cannot be read: its gzip ends too early: it was cut short; " in error
    there = await store18.head()
    assert there in (0, 10_000)
    assert ("nothing was stored" if there == 0 else f"{there:,} events were stored before: run the same") in error
    path.write_bytes(whole)
    [done] = ndjson(esx("import", str(path), "--json", "-d", dsn18).stdout)
    assert done == {"stored": 12_000 - there, "skipped": there, "changed": MADE}
    piped = esx("import", "-", "--json", "-d", dsn18, stdin=whole)
    assert ndjson(piped.stdout) == [{"stored": 0, "skipped": 12_000, "changed": MADE}]


async def test_each_format_is_imported(dsn18: str) -> None:
    for name, compress in COMPRESS.items():
        line = f'{{"stream_id": "{name}", "event_type": "T", "data": "é"}}\n'
        assert esx("import", "-", "-d", dsn18, stdin=compress(line.encode())).returncode == 0, name
    events = ndjson(esx("export", "-d", dsn18).stdout)
    assert [(event["stream_id"], event["data"]) for event in events] == [(name, "é") for name in COMPRESS]


async def test_a_bad_line_is_named_by_its_number_when_unpacked(dsn18: str, tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(gzip.compress(LINES.encode() + b"{}\n"))
    assert "line 12001: stream_id is missing; 10,000 events" in one_line_error(esx("import", str(path), "-d", dsn18), 1)


async def test_it_is_imported_as_it_comes(dsn18: str) -> None:
    process = (await Running.fed("import", "-", "-d", dsn18)).process
    assert process.stdin is not None
    process.stdin.write(gzip.compress(LINES.encode()))
    connection = await asyncpg.connect(dsn18)
    async with asyncio.timeout(120):
        while await connection.fetchval("SELECT count(*) FROM events") < 10_000:
            await asyncio.sleep(0.01)
    await connection.close()
    await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0


ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig", "utf-8"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_other_encodings_are_read(encoding: str) -> None:
    data = LINES[:500].replace("\n", "\r\n").encode(encoding)
    for size in (7, 1000):
        for given in (data, gzip.compress(data)):
            # A mark at the beginning is left to what cuts it into lines.
            assert read(given, size).decode().removeprefix("\ufeff") == LINES[:500].replace("\n", "\r\n")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
async def test_a_file_in_another_encoding_is_imported(encoding: str, dsn18: str, tmp_path: Path) -> None:
    data = LINES[:500].rpartition("\n")[0].replace("\n", "\r\n").encode(encoding)
    path = tmp_path / "events"
    path.write_bytes(gzip.compress(data) if encoding == "utf-16" else data)
    assert esx("import", str(path), "-d", dsn18).returncode == 0
    text = esx("read", "s", "--json", "-d", dsn18).stdout
    assert [event["data"] for event in ndjson(text)][:2] == ["é0", "é1"]


def test_what_is_not_in_the_encoding_that_it_begins_in_is_said() -> None:
    with pytest.raises(Unreadable, match="not UTF-16, as it begins"):
        read('{"a": 1}'.encode("utf-16") + b"x")


def test_an_archive_is_refused_with_the_remedy() -> None:
    with pytest.raises(Unreadable, match="unzip -p"):
        read(b"PK\x03\x04" + bytes(30))


@formats
def test_few_bytes_that_stand_for_many_are_handed_on_in_small_pieces(name: str) -> None:
    bomb = COMPRESS[name](bytes(10_000_000))
    sizes = [len(piece) for piece in plain(iter([bomb]))]
    assert sum(sizes) == 10_000_000
    assert max(sizes) <= 2**20


async def test_a_line_without_end_is_refused(store18: EventStore) -> None:
    good = b'{"stream_id": "s", "event_type": "T", "data": 1}\n'
    with pytest.raises(ImportFailed, match="line 2: it has more than 10,000 bytes"):
        await store18.import_ndjson([good, *[bytes(1000)] * 100], bounds=ChunkBounds(longest=10_000))


def test_zstd_without_its_module_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    data = zstd(b"{}")

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(Unreadable, match="not installed: use zstd -dc"):
        read(data)

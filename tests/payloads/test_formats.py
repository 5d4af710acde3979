"""Each form that a value has in a binary format, as its specification writes it, and the bounds of each format."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import pytest

from esx.payload import Undecoded
from esx.payloads.decoding import decode
from esx.payloads.erlang import erlang_terms
from esx.payloads.limits import DEEPEST, MOST_BYTES, MOST_VALUES, Undecodable
from esx.payloads.messagepack import messagepack
from esx.payloads.protobuf import protobuf
from esx.payloads.yaml_events import yaml_documents
from tests.cli.test_decoding import zstd


def _sized(number: int, size: int) -> bytes:
    return number.to_bytes(size)


_MESSAGEPACK: dict[bytes, Any] = {
    b"\x7f": 127,
    b"\xe0": -32,
    b"\xc0": None,
    b"\xc2": False,
    b"\xc3": True,
    b"\xbf" + b"x" * 31: "x" * 31,
    b"\xc4\x01a": "0x61",
    b"\xc5\x00\x01a": "0x61",
    b"\xc6\x00\x00\x00\x01a": "0x61",
    b"\xc7\x03\x05abc": {"extension 5": "0x616263"},
    b"\xc8\x00\x03\x05abc": {"extension 5": "0x616263"},
    b"\xc9\x00\x00\x00\x03\x05abc": {"extension 5": "0x616263"},
    b"\xca\x3f\xc0\x00\x00": 1.5,
    b"\xcc\xff": 255,
    b"\xcd\xff\xff": 65_535,
    b"\xce\xff\xff\xff\xff": 2**32 - 1,
    b"\xcf" + b"\xff" * 8: 2**64 - 1,
    b"\xd0\x80": -128,
    b"\xd1\x80\x00": -(2**15),
    b"\xd2\x80\x00\x00\x00": -(2**31),
    b"\xd3\x80" + bytes(7): -(2**63),
    b"\xd4\x80a": {"extension -128": "0x61"},
    b"\xd8\x01" + b"a" * 16: {"extension 1": f"0x{'61' * 16}"},
    b"\xd9\x02ab": "ab",
    b"\xda\x00\x02ab": "ab",
    b"\xdb\x00\x00\x00\x02ab": "ab",
    b"\xdc\x00\x01\x01": [1],
    b"\xdd\x00\x00\x00\x01\x01": [1],
    b"\xde\x00\x01\xa1a\x01": {"a": 1},
    b"\xdf\x00\x00\x00\x01\xa1a\x01": {"a": 1},
    b"\xd6\xff" + _sized(1, 4): "1970-01-01T00:00:01+00:00",
    b"\xd7\xff" + _sized(500_000_000 << 34 | 1, 8): "1970-01-01T00:00:01.500000+00:00",
    b"\xc7\x0c\xff" + _sized(0, 4) + (-1).to_bytes(8, signed=True): "1969-12-31T23:59:59+00:00",
    b"\xc7\x0c\xff" + _sized(0, 4) + _sized(2**62, 8): f"{2**62} s since 1970",
}


@pytest.mark.parametrize("raw", _MESSAGEPACK, ids=lambda raw: raw[:3].hex())
def test_messagepack(raw: bytes) -> None:
    assert messagepack(b"\x91" + raw) == [_MESSAGEPACK[raw]]


@pytest.mark.parametrize("raw", [b"\x01", b"\x91", b"\x90\x90", b"\x91\xc1", b"\x91\xa1\xff"], ids=bytes.hex)
def test_what_is_no_messagepack(raw: bytes) -> None:
    with pytest.raises(Undecodable):
        messagepack(raw)


_ERLANG: dict[bytes, Any] = {
    b"a\xff": 255,
    b"b\xff\xff\xff\xfe": -2,
    b"d\x00\x02ok": "ok",
    b"d\x00\x01\xe9": "é",
    b"s\x01\xe9": "é",
    b"v\x00\x02\xc3\xa9": "é",
    b"w\x02\xc3\xa9": "é",
    b"w\x04true": True,
    b"k\x00\x02ab": [97, 98],
    b"j": [],
    b"h\x01j": [[]],
    b"i\x00\x00\x00\x01j": [[]],
    b"l\x00\x00\x00\x01a\x01a\x02": {"list": [1], "tail": 2},
    b"m\x00\x00\x00\x01\xff": "0xff",
    b"n\x02\x00\x01\x02": 513,
    b"n\x02\x01\x01\x02": -513,
    b"o\x00\x00\x00\x02\x00\x01\x02": 513,
    b"t\x00\x00\x00\x02a\x01a\x02a\x01a\x03": {"1": 2, "1 (2)": 3},
}


@pytest.mark.parametrize("raw", _ERLANG, ids=lambda raw: raw[:4].hex())
def test_erlang(raw: bytes) -> None:
    assert erlang_terms(b"\x83" + raw) == _ERLANG[raw]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\x82a\x01", "it is no term"),
        (b"\x83a\x01a", "more follows"),
        (b"\x83w\x01\xe9", "an atom is not UTF-8"),
        (b"\x83n\xff\x00" + b"\x01" * 255 + b"x", "more follows"),
        (b"\x83o\x00\x00\x01\x01\x00" + b"\x01" * 257, "a number of 257 bytes"),
    ],
)
def test_what_is_no_erlang_term(raw: bytes, why: str) -> None:
    with pytest.raises(Undecodable, match=why):
        erlang_terms(raw)


def _field(number: int, raw: bytes) -> bytes:
    return bytes([number << 3 | 2, len(raw)]) + raw


def test_a_map_of_three_in_messagepack_is_no_erlang_term() -> None:
    for raw, found in {
        b"\x83\xa1a\x01\xa1b\x02\xa1c\x03": {"a": 1, "b": 2, "c": 3},
        b"\x83\x61\x01\x62\x02\x63\x03": {"97": 1, "98": 2, "99": 3},
    }.items():
        decoded = decode(Undecoded.of(raw))
        assert decoded.how == "looks like MessagePack"
        assert json.loads(decoded.json or "") == found
    assert decode(Undecoded.of(b"\x83\x61\x07")).how == "looks like Erlang terms"
    damaged = decode(Undecoded.of(b"\x83\x68\x02\x61\x01"))
    assert (damaged.json, "Erlang terms" in damaged.how) == (None, True)


def test_protobuf() -> None:
    most = b"\xff" * 9 + b"\x01"
    assert protobuf(b"\x08" + most) == {"1": 2**64 - 1}
    assert protobuf(b"\x09" + struct.pack("<d", -1.5)) == {"1": -1.5}
    assert protobuf(b"\x09" + struct.pack("<q", -7)) == {"1": -7}
    assert protobuf(b"\x0d" + struct.pack("<f", 0.5)) == {"1": 0.5}
    assert protobuf(_field(1, b"\x08\x01") + _field(2, b"")) == {"1": {"1": 1}, "2": ""}
    assert protobuf(b"\x08\x01" * 4 + _field(2, b"\xff\xfe")) == {"1": [1, 1, 1, 1], "2": "0xfffe"}


@pytest.mark.parametrize(
    "raw",
    [
        b"\x08\x81\x00",
        b"\x08" + b"\xff" * 10 + b"\x01",
        b"\x0b\x01",
        b"\x00\x01",
        _field(1, b"\xff" * 5) + b"\x10\x01",
        # Within a message, too, bytes tell nothing.
        _field(1, _field(1, b"\xff" * 20)),
    ],
    ids=bytes.hex,
)
def test_what_is_hardly_protobuf(raw: bytes) -> None:
    with pytest.raises(Undecodable):
        protobuf(raw)


def test_messages_within_a_message_have_no_values_of_their_own_to_spend() -> None:
    inner = b"\x08\x01" * 60
    outer = _field(2, inner)
    assert protobuf(outer * 100)["2"][99] == {"1": [1] * 60}
    with pytest.raises(Undecodable, match="more than 100,000 values"):
        protobuf(outer * (MOST_VALUES // 60 + 1))


def test_what_follows_the_end_of_compressed_bytes_is_not_left_out() -> None:
    for packed in (zlib.compress(b"{}"), zstd(b"{}")):
        found = decode(Undecoded.of(packed + b"more"))
        assert found.how.endswith("more follows its end")
        assert found.json is None


def test_a_frame_that_asks_for_a_large_window_is_refused() -> None:
    window_24 = bytes.fromhex("28b52ffd 0070 110000 7b7d")  # one block of two bytes, not compressed
    found = decode(Undecoded.of(window_24))
    assert found.json is None
    assert "needs much memory" in found.how
    window_23 = window_24.replace(b"\x70", b"\x68")
    assert decode(Undecoded.of(window_23)).json == "{}"


def test_the_bounds() -> None:
    assert messagepack(b"\xdd" + _sized(MOST_VALUES - 1, 4) + b"\x01" * (MOST_VALUES - 1))[-1] == 1
    with pytest.raises(Undecodable, match="more than 100,000 values"):
        messagepack(b"\xdd" + _sized(MOST_VALUES, 4) + b"\x01" * MOST_VALUES)
    assert messagepack(b"\x91" * DEEPEST + b"\x90")
    with pytest.raises(Undecodable, match="nested deeper than 64"):
        messagepack(b"\x91" * (DEEPEST + 1) + b"\x90")
    assert yaml_documents(b"x" * 1_000_000)
    with pytest.raises(Undecodable, match="more than 1,000,000 bytes"):
        yaml_documents(b"x" * 1_000_001)
    large = decode(Undecoded.of(b"x" * (MOST_BYTES + 1)))
    assert (large.how.endswith("esx decodes up to 8,000,000 bytes"), large.text) == (True, None)


def test_an_alias_is_that_of_its_own_document_and_its_texts_count() -> None:
    with pytest.raises(Undecodable, match="nothing is called &x"):
        yaml_documents(b"--- &x 1\n--- *x\n")
    with pytest.raises(Undecodable, match="its aliases stand for too much"):
        yaml_documents(b"---\n- &x " + b"x" * 900_000 + b"\n" + b"- *x\n" * 9)


def test_the_name_of_a_java_class_that_is_cut_is_not_shown() -> None:
    assert decode(Undecoded.of(b"\xac\xed\x00\x05sr\x00\x0ecom.shop")).how.endswith("(looks like Java serialization)")

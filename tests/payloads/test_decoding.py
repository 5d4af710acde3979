"""Payloads that are no JSON are decoded as far as their format tells, within bounds, and nothing in them is run."""

from __future__ import annotations

import json
import random
import struct
import sys
import zlib
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esx.payload import Undecoded
from esx.payloads.decoding import Decoded, as_json, decode
from esx.payloads.hexdump import hex_lines
from tests.cli.test_decoding import zstd
from tests.payloads.samples import CIPHER, ERLANG, JAVA, PAYLOADS, PROTOBUF, YAML


def decoded(raw: bytes) -> Decoded:
    return decode(Undecoded.of(raw))


def value(raw: bytes) -> Any:
    found = decoded(raw)
    assert found.json is not None, found.how
    return json.loads(found.json)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("zlib", "decoded from zlib, JSON"),
        ("gzip", "decoded from gzip, YAML"),
        ("yaml", "decoded from YAML"),
        ("messagepack", "looks like MessagePack"),
        ("protobuf", "looks like protobuf, without schema"),
        ("erlang", "looks like Erlang terms"),
        ("xml", "XML as text"),
        ("java", "26 bytes, not JSON (looks like Java serialization of com.shop.Order)"),
        ("cipher", "37 bytes, not JSON"),
    ],
)
def test_it_is_said_how_a_payload_was_decoded(name: str, how: str) -> None:
    assert decoded(PAYLOADS[name]).how == how


def test_compressed_json_keeps_its_digits() -> None:
    assert decoded(PAYLOADS["zlib"]).json == '{"amount": 1.50}'
    assert decoded(zstd(zlib.compress(b"[1.0]"))).json == "[1.0]"
    assert decoded(zlib.compress(b"only text")).text == "only text"


@pytest.mark.parametrize("pack", [zlib.compress, zstd], ids=["zlib", "zstd"])
def test_a_bomb_is_not_unpacked(pack: Any) -> None:
    found = decoded(pack(bytes(30_000_000)))
    assert "it has more than 8,000,000 bytes" in found.how
    assert (found.json, found.text) == (None, None)


@pytest.mark.parametrize("cut", [1, 5])
def test_damaged_compression_is_shown_as_bytes(cut: int) -> None:
    assert "(looks like zlib): it ends too early" in decoded(PAYLOADS["zlib"][:-cut]).how
    assert decoded(b"\x78\x9c" + CIPHER).how.endswith("it is damaged")


def test_it_is_compressed_only_so_often() -> None:
    raw = b"{}"
    for _ in range(10):
        raw = zlib.compress(raw)
    assert "compressed too many times" in decoded(raw).how


def test_symbols_of_ruby_are_names_and_its_tags_stay() -> None:
    assert value(YAML) == {"owner": "Ann", "currency": "EUR", "limit": None}
    text = b"""---
:price: !ruby/object:BigDecimal 18:0.15e1
:order: !ruby/object:Shop::Order
  :id: 007
  :total: 1.50
  :at: 2026-08-07 14:00:00 Z
:kind: :express
:"two words": yes
":text": '1'
1: ~
"""
    assert value(text) == {
        "price": {"!ruby/object:BigDecimal": "18:0.15e1"},
        "order": {"!ruby/object:Shop::Order": {"id": "007", "total": 1.5, "at": "2026-08-07 14:00:00 Z"}},
        "kind": ":express",
        "two words": True,
        ":text": "1",
        "1": None,
    }
    assert '"total": 1.50' in str(decoded(text).json)


def test_no_object_is_made_of_yaml(tmp_path: Any) -> None:
    touched = tmp_path / "touched"
    text = f"--- !!python/object/apply:os.mkdir ['{touched}']\n".encode()
    assert value(text) == {"!!python/object/apply:os.mkdir": [str(touched)]}
    assert not touched.exists()


def test_aliases_stand_for_their_values_up_to_a_bound() -> None:
    assert value(b"---\na: &x [1]\nb: *x\n") == {"a": [1], "b": [1]}
    assert value(b"--- &x [*x]\n") == ["*x"]
    laughs = "---\n- &a0 [ha, ha]\n" + "".join(f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    found = decoded(laughs.encode())
    assert found.how.endswith("its aliases stand for too much")
    assert found.text == laughs


def test_names_that_repeat_are_all_shown() -> None:
    assert value(b"---\na: 1\na: 2\n") == {"a": 1, "a (2)": 2}
    assert len(value(b"---\n- 1\n--- 2\n")) == 2


def test_damaged_yaml_is_text() -> None:
    found = decoded(b"---\na: [\n")
    assert (found.how, found.text) == ("9 bytes, not JSON (looks like YAML): it is damaged in line 3", "---\na: [\n")


def test_without_pyyaml_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    found = decoded(YAML)
    assert found.how.endswith("not JSON (looks like YAML): to decode it: pip install pyyaml")
    assert found.text == YAML.decode()


def test_without_libyaml_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert value(YAML) == {"owner": "Ann", "currency": "EUR", "limit": None}
    assert "nested deeper than 64" in decoded(b"---\n" + b"- " * 5000).how


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda parts: st.lists(parts, max_size=5) | st.dictionaries(st.text(max_size=5), parts, max_size=5),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(_PLAIN, max_size=4) | st.dictionaries(st.text(max_size=5), _PLAIN, max_size=4))
def test_messagepack_is_read_as_its_own_package_writes_it(written: Any) -> None:
    from esx.payloads.messagepack import messagepack

    assert messagepack(msgpack.packb(written)) == written


def test_what_messagepack_has_and_json_has_not() -> None:
    moment = datetime(2026, 8, 7, 14, tzinfo=UTC)
    assert value(msgpack.packb([moment, b"\xff", msgpack.ExtType(5, b"\x01"), float("inf")], datetime=True)) == [
        "2026-08-07T14:00:00+00:00",
        "0xff",
        {"extension 5": "0x01"},
        "inf",
    ]


def test_protobuf_shows_fields_by_number() -> None:
    assert value(PROTOBUF) == {"1": 150, "2": "message", "4": 1.0, "3": {"1": 150}}
    assert value(b"\x0a\x03one\x0a\x03two") == {"1": ["one", "two"]}


def test_erlang_terms() -> None:
    assert value(ERLANG) == {"amount": 256}
    assert value(b"\x83P\x00\x00\x00\x08" + zlib.compress(b"m\x00\x00\x00\x03Ann")) == "Ann"
    terms = b"\x83h\x05w\x02okw\x03nilFA\x00\x00\x00\x00\x00\x00\x00" + b"l\x00\x00\x00\x01a\x05jn\x02\x01\x00\x01"
    assert value(terms) == ["ok", None, struct.unpack(">d", b"A" + bytes(7))[0], [5], -256]
    assert "a term of the kind 103" in decoded(b"\x83g").how


def test_java_is_only_named() -> None:
    found = decoded(JAVA)
    assert (found.json, found.text) == (None, None)
    assert decoded(b"\xac\xed\x00\x05sr\xff\xffx").how == "9 bytes, not JSON (looks like Java serialization)"


def test_xml_is_not_parsed() -> None:
    assert decoded(PAYLOADS["xml"]).text == PAYLOADS["xml"].decode()


def test_random_bytes_look_like_nothing() -> None:
    draw = random.Random(7)
    guessed = [raw for raw in (draw.randbytes(200) for _ in range(300)) if decoded(raw).json is not None]
    assert len(guessed) <= 3


_HOSTILE = [
    b"---\n" + b"[" * 100_000,
    b"---\n" + b"{a: " * 50_000,
    b"---\n" + b"? " * 100_000,
    b"---\n" + b"&a " * 100_000,
    b"\xdd\xff\xff\xff\xff" * 10_000,
    b"\xdf\x7f\xff\xff\xff" * 10_000,
    b"\x91" * 100_000,
    b"\x83" + b"h\x01" * 100_000,
    b"\x83l\xff\xff\xff\xff" * 1000,
    b"\x83o\x00\x0f\xff\xff\x00" + b"\xff" * 0xFFFFF,
    b"\x83P\xff\xff\xff\xff" + zlib.compress(bytes(30_000_000)),
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\x0a\x80" * 50_000,
    b"\x0a\x00" * 110_000,
]


@pytest.mark.parametrize("raw", _HOSTILE, ids=range(len(_HOSTILE)))
@pytest.mark.slow
@pytest.mark.limit(20)
def test_hostile_payloads_end_as_bytes_or_text(raw: bytes) -> None:
    assert decoded(raw).json is None


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"", *PAYLOADS.values()]), st.binary(max_size=200), st.integers(0, 60))
@example(b"", b"\x80", 0)
@example(b"", b"", 0)
def test_whatever_is_stored_something_is_shown(start: bytes, rest: bytes, kept: int) -> None:
    raw = start[:kept] + rest
    found = decoded(raw)
    assert found.how
    json.loads(as_json(found))
    assert hex_lines(found.raw) or not found.raw


def test_a_hex_dump_is_bounded() -> None:
    assert hex_lines(b"\x00A\xff\x80") == [f"0000  {'0041 ff80'.ljust(39)}  .A.."]
    lines = hex_lines(bytes(10_000))
    assert len(lines) == 257
    assert lines[-1] == "… 5,904 bytes more"
    assert max(map(len, hex_lines(bytes(10_000), 44))) <= 44

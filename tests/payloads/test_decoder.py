"""A decoder of the user's: found as reducers are, asked first, and no worse than an error in one line."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from esx.model import Event
from esx.payload import Undecoded
from esx.payloads.decoder import Decoder, DecoderFailed, decode_event, load_decoder
from tests.payloads.samples import CIPHER, PAYLOADS


def event(data: str) -> Event:
    return Event(7, "pay-1", 0, "Paid", data, None, None, None)


def test_it_is_given_the_bytes_the_type_and_the_stream() -> None:
    def function(raw: bytes, event_type: str, stream_id: str) -> Any:
        return {"raw": raw.hex(), "type": event_type, "stream": stream_id, "amount": Decimal("1.50")}

    found = decode_event(event(Undecoded.of(b"\x01")), Decoder("mine:one", function))
    assert found.data is not None
    assert found.data.how == "decoded by mine:one"
    assert found.data_json == '{"raw": "01", "type": "Paid", "stream": "pay-1", "amount": 1.50}'


def test_what_it_does_not_know_is_decoded_by_esx() -> None:
    found = decode_event(event(Undecoded.of(PAYLOADS["zlib"])), Decoder("mine:none", lambda *_: None))
    assert (found.data_json, found.failed) == ('{"amount": 1.50}', None)


@pytest.mark.parametrize("result", [b"bytes", float("nan"), object()], ids=["bytes", "nan", "object"])
def test_what_it_returns_must_be_json(result: object) -> None:
    found = decode_event(event(Undecoded.of(CIPHER)), Decoder("mine:odd", lambda *_: result))
    assert str(found.failed).startswith("decoder mine:odd failed: TypeError: ")
    assert found.data_json is None


def test_json_is_not_given_to_it() -> None:
    found = decode_event(event('{"a": 1}'), Decoder("mine:never", lambda *_: 1 / 0))
    assert (found.data, found.data_json, found.failed) == (None, '{"a": 1}', None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "does not name a decoder: use module:function, as in billing.payloads:decode"),
        ("no_such_module:f", "there is no module no_such_module"),
        ("math:pi", "is a float, not a function(bytes, event_type, stream_id)"),
    ],
)
def test_a_decoder_that_cannot_be_loaded_is_named(name: str, said: str) -> None:
    with pytest.raises(DecoderFailed) as raised:
        load_decoder(name)
    assert said in str(raised.value)

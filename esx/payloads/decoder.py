"""The user's own decoder of payloads, and the decoding of an event by it, or by what esx knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from esx.errors import EsxError
from esx.fold.named import load_function, reason_of
from esx.fold.reducer import Reducer
from esx.fold.value import dump
from esx.model import Event
from esx.payload import Undecoded
from esx.payloads.decoding import Decoded, as_json, decode
from esx.text import encodable, visible


class DecoderFailed(EsxError):
    """A decoder could not be loaded, raised an error at an event, or returned a value that is not JSON."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """A named ``function(bytes, event_type, stream_id)`` that returns a value for JSON, or None."""

    name: str
    function: Callable[[bytes, str, str], Any]

    def decode(self, event: Event, raw: bytes) -> Decoded | None:
        """Decode the data of an event; None if the function does not know them. Raises DecoderFailed."""
        try:
            value = self.function(raw, event.event_type, event.stream_id)
            if value is None:
                return None
            return Decoded(f"decoded by {visible(self.name, limit=100)}", raw, json=encodable(dump(value)))
        except (Exception, SystemExit) as error:
            raise DecoderFailed(f"decoder {visible(self.name, limit=100)} failed: {reason_of(error)}") from error


def load_decoder(text: str) -> Decoder:
    """Return the decoder written as ``module:function``, found as reducers are. Raises DecoderFailed."""
    example = "billing.payloads:decode"
    return Decoder(text, load_function(text, "decoder", example, "bytes, event_type, stream_id", DecoderFailed))


class DecodedEvent(NamedTuple):
    """An event, and what its payloads are decoded to; None for one that is JSON. `failed` says how a decoder failed."""

    event: Event
    data: Decoded | None = None
    metadata: Decoded | None = None
    failed: str | None = None

    @property
    def data_json(self) -> str | None:
        """The data as JSON, None where they are bytes that are not decoded to JSON."""
        return self.event.data_json if self.data is None else self.data.json

    def to_json(self) -> str:
        """Return the event as one line of NDJSON, with what its payloads are decoded to."""
        extra = ""
        for name, decoded in (("data", self.data), ("metadata", self.metadata)):
            if decoded is not None:
                extra += f', "{name}_decoded": {as_json(decoded)}, "{name}_decoded_how": {dump(decoded.how)}'
        return f"{self.event.to_json()[:-1]}{encodable(extra)}}}"


def is_undecoded(event: Event) -> bool:
    """Return whether a payload of the event is no JSON."""
    return isinstance(event.data_json, Undecoded) or isinstance(event.metadata_json, Undecoded)


def decode_event(event: Event, decoder: Decoder | None = None) -> DecodedEvent:
    """Decode the payloads of an event that are no JSON, the data by `decoder` first. An error of that is in the result.

    It can take seconds for large payloads, and runs the user's code: call it in a thread.
    """
    found = DecodedEvent(event)
    if isinstance(event.metadata_json, Undecoded):
        found = found._replace(metadata=decode(event.metadata_json))
    if not isinstance(event.data_json, Undecoded):
        return found
    data = failed = None
    if decoder is not None:
        try:
            data = decoder.decode(event, event.data_json.raw)
        except DecoderFailed as error:
            failed = str(error)
    if data is None:
        data = decode(event.data_json)
    if failed is not None:
        data = replace(data, how=f"{failed}; {data.how}")
    return found._replace(data=data, failed=failed)


def decoding(reducer: Reducer, decoder: Decoder | None) -> Reducer:
    """Return the reducer, given events whose data are decoded to JSON where that is possible."""

    def function(state: Any, event: Event) -> Any:
        if isinstance(event.data_json, Undecoded):
            found = decode_event(event, decoder)
            if found.failed is not None:
                raise DecoderFailed(found.failed)
            event = event._replace(data_json=found.data_json or event.data_json)
        return reducer.function(state, event)

    return replace(reducer, function=function)

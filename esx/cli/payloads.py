"""Printing events whose payloads are no JSON: with what they are, or decoded where that is asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import click

from esx.cli.events import event_head, noted, print_events, tell_odd_event
from esx.cli.forms import CsvLines
from esx.cli.opening import decoder_of
from esx.cli.options import decoder_option
from esx.cli.output import OutputLines, incomplete, narrate
from esx.text import counted, iso_utc, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from esx.cli.forms import Form
    from esx.model import Event
    from esx.payloads.decoder import DecodedEvent
    from esx.payloads.decoding import Decoded

_MOST_TOLD = 10
Command = TypeVar("Command", bound="Callable[..., Any]")


def decode_options(command: Command) -> Command:
    """Add --decode and --decoder, which the command receives as `decode` and `decoder`."""
    flag = click.option(
        "--decode", is_flag=True, help="Decode payloads that are no JSON: compressed, YAML, MessagePack and others."
    )
    return flag(decoder_option(command))


class PayloadDecoding:
    """Puts into events what their payloads are decoded to, by the `decoder` that `decoder_of` finds, and counts."""

    def __init__(self, decoder: str | None) -> None:
        self._decoder = decoder_of(decoder)
        self._counts: Counter[str] = Counter()
        self._failed: str | None = None

    def event(self, event: Event) -> Event:
        """Return the event, with the payloads that can be decoded to JSON as JSON."""
        from esx.payloads.decoder import decode_event

        found = decode_event(event, self._decoder)
        if found.failed is not None and self._failed is None:
            self._failed = f"event {visible(f'{event.stream_id}@{event.stream_seq}', limit=200)}: {found.failed}"
        data, metadata = (self._json(decoded) for decoded in (found.data, found.metadata))
        return event._replace(
            data_json=event.data_json if data is None else data,
            metadata_json=event.metadata_json if metadata is None else metadata,
        )

    def _json(self, decoded: Decoded | None) -> str | None:
        if decoded is None or decoded.json is None:
            return None
        self._counts[decoded.how] += 1
        return decoded.json

    def tell(self) -> None:
        """Say how the payloads were decoded, and whether the decoder has failed."""
        for how, count in self._counts.most_common(_MOST_TOLD):
            narrate(f"{counted(count, 'payload')}: {how}")
        if self._failed is not None:
            incomplete(f"{self._failed}; others like it are not reported")


class EventPrinter:
    """Prints events; with `decode` or a `decoder`, which is a text for `decoder_of`, with their payloads decoded.

    `in_full` is for an event that is asked for alone: for people it is decoded, and what is no JSON is shown below it.
    `alone` says that all events are of one stream.
    """

    def __init__(
        self, form: Form, *, decode: bool, decoder: str | None, in_full: bool = False, alone: bool = False
    ) -> None:
        self.lines = OutputLines()
        self._as_json = form.as_json
        self._in_full = in_full and form.kind == "table"
        self._csv = CsvLines() if form.as_csv else None
        self._compact = None
        if form.compact and not self._in_full:
            from esx.cli.compact import CompactEvents

            self._compact = CompactEvents(self.lines, form, alone=alone)
        self._colour = form.colour
        self.decodes = decode or decoder is not None
        self._decoder = decoder_of(decoder) if self.decodes else None
        self._failed = False

    async def print(self, events: Iterable[Event]) -> None:
        """Print events."""
        await self.lines.room()
        plain = self._csv is None and self._compact is None
        if not self.decodes and not self._in_full and plain:
            print_events(self.lines, events, as_json=self._as_json, colour=self._colour)
            return
        from esx.model import place_text
        from esx.payloads.decoder import DecodedEvent, decode_event, is_undecoded

        for event in events:
            tell_odd_event(event)
            decoded = DecodedEvent(event)
            if is_undecoded(event) and (self.decodes or self._in_full):
                decoder = self._decoder if self.decodes else decoder_of(None)
                decoded = await asyncio.to_thread(decode_event, event, decoder)
            if decoded.failed is not None and not self._failed:
                self._failed = True
                place = visible(place_text(event.stream_id, event.stream_seq), limit=200)
                incomplete(f"event {place}: {decoded.failed}; others like it are not reported")
            if self._as_json:
                self.lines.json(decoded.to_json())
            elif self._csv is not None:
                self._csv.row(_columns(decoded))
            elif self._compact is not None:
                self._compact.add(event, _in_short(decoded))
            else:
                self._print_text(decoded)

    def flush(self) -> None:
        """Print what waits for more."""
        if self._compact is not None:
            self._compact.flush()
        self.lines.flush()

    def _print_text(self, decoded: DecodedEvent) -> None:
        event = decoded.event
        below: list[str] = []
        line = f"{event_head(event)}  {self._payload(event.data_json, decoded.data, below)}"
        if event.metadata_json:
            line += f"  {self._payload(event.metadata_json, decoded.metadata, below)}"
        self.lines.text(line, *below)

    def _payload(self, text: str, decoded: Decoded | None, below: list[str]) -> str:
        """Return what the line has of a payload, and add to `below` what follows it."""
        from esx.payloads.decoding import as_json
        from esx.payloads.hexdump import hex_lines

        if decoded is None:
            return text
        if decoded.json is None and self._in_full:
            lines = decoded.text.splitlines() if decoded.text is not None else hex_lines(decoded.raw)
            below += [f"          {line}" for line in lines]
        elif decoded.json is not None or decoded.text is not None:
            return f"{as_json(decoded)}  ({decoded.how})"
        return f"({decoded.how})"


def _columns(decoded: DecodedEvent) -> dict[str, Any]:
    """Return the columns of an event in CSV, named as in JSON."""
    from esx.model import UNNUMBERED

    event = decoded.event
    values: dict[str, Any] = event._asdict()
    data, metadata = (None if part is None else part.json for part in (decoded.data, decoded.metadata))
    values |= {
        "data_json": event.data_json if data is None else data,
        "metadata_json": event.metadata_json if metadata is None else metadata,
        "created_at": None if event.created_at is None else iso_utc(event.created_at),
        "event_id": None if event.event_id is None else str(event.event_id),
    }
    return {
        name.removesuffix("_json"): None if name.endswith("_seq") and value == UNNUMBERED else value
        for name, value in values.items()
    }


def _in_short(decoded: DecodedEvent) -> str:
    """Return what a compact line has of an event's data."""
    from esx.fold.brief import brief
    from esx.payload import Undecoded
    from esx.payloads.decoding import as_json

    data = decoded.event.data_json
    if decoded.data is not None and (decoded.data.json is not None or decoded.data.text is not None):
        return brief(as_json(decoded.data))
    return visible(noted(data)) if isinstance(data, Undecoded) else brief(data)

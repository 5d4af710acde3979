"""The explorer on a store whose payloads are bytes: lists say what they are, an event in full is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from esx.payloads.decoder import Decoder
from tests.payloads.samples import PAYLOADS, make_store
from tests.support.connections import connected
from tests.tui.helpers import browse, explorer, text_of, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from esx.tui.app import Explorer

pytestmark = pytest.mark.slow


@pytest.fixture
async def packed(empty_dsn18: str) -> str:
    async with connected(empty_dsn18) as connection:
        await make_store(connection)
    return empty_dsn18


async def open_stream(app: Explorer, pilot: Pilot[None]) -> None:
    await pilot.press("enter")
    await until(pilot, lambda: browse(app).events.has_focus and len(browse(app).events.rows) == len(PAYLOADS), "")


async def go_to(app: Explorer, pilot: Pilot[None], name: str, shown: str) -> None:
    await pilot.press("home", *["down"] * list(reversed(PAYLOADS)).index(name))
    await until(pilot, lambda: shown in text_of(app), f"for {name}")


async def test_an_event_in_full_is_decoded_and_says_how_and_the_feed_says_what_payloads_are(packed: str) -> None:
    async with explorer(packed, size=(220, 40)) as (app, pilot):
        await open_stream(app, pilot)
        await go_to(app, pilot, "yaml", "decoded from YAML")
        assert '"owner": "Ann"' in text_of(app)
        await go_to(app, pilot, "protobuf", "looks like protobuf, without schema")
        await go_to(app, pilot, "xml", "XML as text")
        assert "<order>" in text_of(app)
        await go_to(app, pilot, "cipher", "37 bytes, not JSON")
        assert "0000  fff8 f1ea e3dc d5ce" in text_of(app)
        await go_to(app, pilot, "json", '"amount": 1.50')
        assert "decoded" not in text_of(app)

        # Changes are those of what was decoded.
        await go_to(app, pilot, "yaml", "decoded from YAML")
        await pilot.press("d")
        await until(pilot, lambda: "changed since 2 gzip  none" in text_of(app), "for the comparison")
        await go_to(app, pilot, "cipher", "not compared, as the data are no JSON")

        # The feed says what payloads are.
        await pilot.press("2")
        await until(pilot, lambda: "24 bytes, not JSON (looks like zlib)" in text_of(app), "for the feed")


async def test_a_decoder_comes_first_and_its_error_is_one_line(packed: str) -> None:
    def function(raw: bytes, event_type: str, stream_id: str) -> Any:
        if event_type == "java":
            raise KeyError(stream_id)
        return {"mine": len(raw)} if event_type == "cipher" else None

    async with explorer(packed, size=(120, 40), decoder=Decoder("shop:decode", function)) as (app, pilot):
        await open_stream(app, pilot)
        await go_to(app, pilot, "cipher", "decoded by shop:decode")
        assert '"mine": 37' in text_of(app)
        await go_to(app, pilot, "java", "decoder shop:decode failed: KeyError")
        assert "24 bytes, zlib" in text_of(app)

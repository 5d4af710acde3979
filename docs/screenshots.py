"""Makes the pictures of the explorer: ``python docs/screenshots.py [NAME...]``; without a name, all of them.

They are real: the demo's history in an embedded PostgreSQL of its own, the explorer driven by keys.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from esx import EventStore
from esx.demo.fill import fill
from esx.demo.traffic import run_traffic
from esx.embedded import EmbeddedServer
from esx.load.model import LoadOptions
from esx.load.process import LoadRun
from esx.tui.app import Explorer
from esx.tui.parts.loadform import LoadForm
from esx.tui.screens.load import LoadPane

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot

_DOCS = Path(__file__).parent
_SIZE = (150, 38)


async def main() -> None:
    """Fill a store, and take each picture."""
    with tempfile.TemporaryDirectory(prefix="esx-") as directory, EmbeddedServer.start(Path(directory)) as server:
        async with EventStore.connect(server.dsn) as store:
            await store.init()
            await fill(store, now=datetime.now(UTC))

            async def traffic() -> None:
                await run_traffic(store, seed=1)

            wanted = sys.argv[1:] or ["explorer", "feed", "load"]
            if "explorer" in wanted:
                await _shoot(server, "explorer", _order)
            if "feed" in wanted:
                await _shoot(server, "feed", _feed, background=traffic)
            if "load" in wanted:
                await _shoot(server, "load", _load)


async def _order(pilot: Pilot[None]) -> None:
    await pilot.press("slash", *"orders-2035", "enter")
    await _settle(pilot, 1.0)
    await pilot.press("down", "enter")
    await _settle(pilot, 1.0)
    await pilot.press("down", "down")
    await _settle(pilot, 1.0)


async def _feed(pilot: Pilot[None]) -> None:
    await pilot.press("2")
    await _settle(pilot, 12.0)


async def _load(pilot: Pilot[None]) -> None:
    await pilot.press("3")
    await _settle(pilot, 1.0)
    form = pilot.app.query_one(LoadForm)
    options = LoadOptions(users=32, duration=30.0, streams=60, hot_streams=4, hot_share=0.8, on_conflict="backoff")
    form.fill(replace(options, yes_write_to="localhost/esx"))
    await pilot.press("s")
    pane = pilot.app.query_one(LoadPane)
    while pane.running:
        await _settle(pilot, 1.0)
    await _settle(pilot, 1.0)


async def _settle(pilot: Pilot[None], seconds: float) -> None:
    """Let the screen come to rest; a picture has no condition to wait for."""
    await pilot.pause(seconds)


async def _shoot(
    server: EmbeddedServer,
    name: str,
    drive: Callable[[Pilot[None]], object],
    background: Callable[[], object] | None = None,
) -> None:
    app = Explorer(server.dsn, label="embedded PostgreSQL 18", embedded=True, background=background, run_load=LoadRun)  # type: ignore[arg-type]
    async with app.run_test(size=_SIZE) as pilot:
        await _settle(pilot, 2.0)
        await drive(pilot)  # type: ignore[misc]
        picture = app.export_screenshot(title="esx")
    # No fonts from elsewhere: a picture in a repository should load nothing.
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    (_DOCS / f"{name}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())

"""Makes the pictures of the explorer: ``python docs/screenshots.py``.

They are real: the demo's history in an embedded PostgreSQL of its own, the explorer driven by keys.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from esx import EventStore
from esx.demo.fill import fill
from esx.demo.traffic import run_traffic
from esx.embedded import EmbeddedServer
from esx.tui.app import Explorer

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

            await _shoot(server, "explorer", _order)
            await _shoot(server, "feed", _feed, background=traffic)


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


async def _settle(pilot: Pilot[None], seconds: float) -> None:
    """Let the screen come to rest; a picture has no condition to wait for."""
    await pilot.pause(seconds)


async def _shoot(
    server: EmbeddedServer,
    name: str,
    drive: Callable[[Pilot[None]], object],
    background: Callable[[], object] | None = None,
) -> None:
    app = Explorer(server.dsn, label="embedded PostgreSQL 18", embedded=True, background=background)  # type: ignore[arg-type]
    async with app.run_test(size=_SIZE) as pilot:
        await _settle(pilot, 2.0)
        await drive(pilot)  # type: ignore[misc]
        picture = app.export_screenshot(title="esx")
    # No fonts from elsewhere: a picture in a repository should load nothing.
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    (_DOCS / f"{name}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())

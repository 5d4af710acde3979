"""Makes the pictures of the explorer: ``python -m docs.screenshots``, in the repository's root.

They are real: the demo's history in an embedded PostgreSQL, and the explorer driven by keys. Clock, time zone and
everything else that differs between machines are fixed, so that the same explorer gives the same pictures;
``tests/tui/test_pictures.py`` fails when one of them is out of date. A saved run stands for the load test.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from esx import EventStore
from esx.embedded import EmbeddedServer
from tests.support.connections import connected
from tests.tui.pictures import LIVE, OTHER_STORES, fill_shop, fixed, shop, take_all, take_other_store
from tests.tui.recorded_pictures import take_recording

_DOCS = Path(__file__).parent


async def main() -> None:
    """Fill a store, and take each picture."""
    with tempfile.TemporaryDirectory(prefix="esx-") as directory, EmbeddedServer.start(Path(directory)) as server:
        async with EventStore.connect(server.dsn) as store:
            await store.init()
        await fill_shop(server.dsn, shop()[:-LIVE])

        def save(name: str, picture: str) -> None:
            (_DOCS / f"{name}.svg").write_text(picture, encoding="utf-8")
            print(f"docs/{name}.svg")

        with fixed() as clock:
            await take_all(server.dsn, clock, save, lambda _name: "")
            for name in OTHER_STORES:
                async with connected(server.dsn_for("postgres")) as connection:
                    await connection.execute(f"CREATE DATABASE {name}")
                await take_other_store(server.dsn_for(name), name, save, lambda _name: "")
            await take_recording(server, save, lambda _name: "")


if __name__ == "__main__":
    asyncio.run(main())

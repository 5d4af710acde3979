"""`esx open` and `esx bookmarks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx import NewEvent
from tests.cli.support import esx, ndjson, on_terminal, one_line_error
from tests.tui.helpers import browse, explorer, until

if TYPE_CHECKING:
    from pathlib import Path

    from esx import EventStore


@pytest.mark.slow
async def test_the_explorer_begins_where_a_locator_leads(dsn18: str, store18: EventStore) -> None:
    for name in ("carts-1", "orders-1", "orders-2"):
        await store18.append(name, [NewEvent(f"T{n}", {"n": n}) for n in range(5)])
    for at, number in (("orders-1", 2), (None, 9)):
        async with explorer(dsn18, connected=False, at=(at, number)) as (app, pilot):

            def there(event_number: int = number, stream: str | None = at) -> bool:
                event = browse(app).detail.event
                found = event is not None and event_number == (event.global_seq if stream is None else event.stream_seq)
                return found and browse(app).events_panel.stream_id == stream

            await until(pilot, there, "for the event")
            assert browse(app).events.has_focus
            # It is where it begins, and not where it stays.
            await pilot.press("left", "home", "down")
            await until(pilot, lambda: browse(app).events_panel.stream_id == "carts-1")


@pytest.mark.slow
async def test_a_place_that_is_not_there_is_said(dsn18: str, store18: EventStore, tmp_path: Path) -> None:
    await store18.append("orders-1", [NewEvent("T")])
    assert "the explorer needs a terminal" in one_line_error(esx("open", "esx://x/orders-1", "-d", dsn18), 2)
    config = tmp_path / "config.toml"
    config.write_text(f'[connections.shop]\ndsn = "{dsn18}"\n')
    for locator, reason in (
        ("esx://other/orders-1", "there is no connection other here"),
        ("esx://shop/nothing-1", "stream nothing-1 has no events"),
        ("esx://shop/orders-1@7", "there is no event 7 in orders-1"),
        ("esx://shop/$all@700", "there is no event 700 in $all"),
        ("orders-1@7", "is no locator"),
    ):
        code, text = on_terminal("open", locator, ESX_CONFIG=str(config))
        assert code != 0
        assert reason in text
        assert "Traceback" not in text


async def test_bookmarks_are_added_listed_and_removed(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[connections.shop]\ndsn = "postgresql://nobody@localhost/shop"\n')
    given = {"ESX_CONFIG": str(config), "ESX_DATA_DIR": str(tmp_path)}
    assert "no bookmarks yet" in esx("bookmarks", "-d", "shop", **given).stderr
    added = esx("bookmarks", "add", "orders-42@7", "it began here", "-d", "shop", **given)
    assert (added.returncode, added.stdout) == (0, "esx://shop/orders-42@7\n")
    assert esx("bookmarks", "add", "esx://shop/$all@9", **given).stdout == "esx://shop/$all@9\n"
    assert esx("bookmarks", "add", "a-1", "-d", "embedded", **given).stdout == "esx://embedded/a-1\n"
    listed = ndjson(esx("bookmarks", "-d", "shop", "--json", **given).stdout)
    assert [(one["number"], one["locator"], one["note"]) for one in listed] == [
        (1, "esx://shop/orders-42@7", "it began here"),
        (2, "esx://shop/$all@9", ""),
    ]
    assert len(esx("bookmarks", "--all", **given).stdout.splitlines()) == 4
    assert "there is no bookmark 3" in one_line_error(esx("bookmarks", "remove", "3", "-d", "shop", **given), 2)
    assert esx("bookmarks", "remove", "1", "-d", "shop", **given).stderr == "forgot esx://shop/orders-42@7\n"
    assert [one["number"] for one in ndjson(esx("bookmarks", "-d", "shop", "--json", **given).stdout)] == [1]
    assert "there is no connection other" in one_line_error(esx("bookmarks", "add", "esx://other/a", **given), 2)
    assert "names no stream" in one_line_error(esx("bookmarks", "add", "@3", "-d", "shop", **given), 2)

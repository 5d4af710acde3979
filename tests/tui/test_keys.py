"""Which keys the footer offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tui.helpers import browse, explorer, fill, lines_of, until

if TYPE_CHECKING:
    from esx.store import EventStore


@pytest.mark.parametrize("width", [80, 200])
async def test_the_footer_begins_with_the_focused_part_and_always_ends_with_help_and_quit(
    dsn18: str, store18: EventStore, width: int
) -> None:
    await fill(store18, 3, 3)
    async with explorer(dsn18, size=(width, 24)) as (app, pilot):

        def footer() -> str:
            return lines_of(app)[-1]

        async def begins(text: str) -> None:
            await until(pilot, lambda: footer().startswith(text), f"for a footer with {text}")
            assert footer().rstrip().endswith("? Help q Quit ^p palette")
            # Keys are left out as a whole.
            assert ("y Copy" in footer()) == (width == 200 or "f Find" not in text)

        await until(pilot, lambda: browse(app).detail.event is not None)
        await begins("/ Filter s Sort c Group t Trail")
        await pilot.press("right")
        await begins("f Find : Go to a $all b Flip t Trail")
        await pilot.press("right")
        await begins("enter Fold y Copy d Diff v State / Search t Trail")
        await pilot.resize_terminal(60, 24)
        await until(pilot, lambda: len(footer()) == 60 and footer().startswith("enter Fold y Copy d Diff v State  "))
        assert footer().endswith("? Help q Quit ^p palette")

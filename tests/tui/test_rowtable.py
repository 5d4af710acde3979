"""A list draws its changes, also where rows change in place."""

from __future__ import annotations

from textual.app import ComposeResult

from esx.tui.cells import Cell
from esx.tui.contrast import ReadableApp
from esx.tui.lists.column import ListColumn
from esx.tui.lists.rowtable import RowTable
from tests.tui.helpers import text_of


class OneList(ReadableApp):
    def compose(self) -> ComposeResult:
        yield RowTable[str]([ListColumn("row", Cell)], id="rows", empty="nothing here")


async def test_rows_that_changed_in_place_are_drawn() -> None:
    app = OneList()
    async with app.run_test(size=(40, 12)) as pilot:
        table = app.query_one(RowTable)
        rows = [f"row {number:03}" for number in range(5)]
        table.set_rows(rows, cursor=4, offset=0, length=20)
        await pilot.pause()
        assert "row 004" in text_of(app)
        assert " ·" in text_of(app)
        # Below, where nothing was loaded; and then as many more as fall out above.
        rows += [f"row {number:03}" for number in range(5, 20)]
        table.set_rows(rows, cursor=4, offset=0, length=20)
        await pilot.pause()
        assert "row 009" in text_of(app)
        assert " ·" not in text_of(app)
        rows.append("row 020")
        del rows[0]
        table.set_rows(rows, cursor=4, offset=0, length=20)
        await pilot.pause()
        assert "row 010" in text_of(app)
        assert "row 000" not in text_of(app)


async def test_what_is_said_in_place_of_rows_is_drawn() -> None:
    app = OneList()
    async with app.run_test(size=(40, 12)) as pilot:
        table = app.query_one(RowTable)
        table.set_rows([], cursor=0, offset=0)
        await pilot.pause()
        assert "nothing here" in text_of(app)
        table.empty = "searching"
        await pilot.pause()
        assert "searching" in text_of(app)
        table.problem = "no answer"
        await pilot.pause()
        assert "no answer" in text_of(app)
        table.set_rows(["a", "b", "c"], cursor=0, offset=0)
        table.columns = [ListColumn("other", Cell)]
        table.forget_widths()
        await pilot.pause()
        assert "other" in text_of(app)
        assert "no answer" not in text_of(app)

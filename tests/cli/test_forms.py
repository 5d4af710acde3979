"""The forms of what is printed: compact on a terminal, everything in a pipe, CSV, and a pager for what is long."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING

import pytest

from esx import JsonText, NewEvent
from esx.cli.compact import Column, CompactCell, CompactTable, cut_middle
from esx.cli.forms import CsvLines, Form
from esx.cli.output import OutputLines
from esx.cli.pager import pager_command
from esx.cli.style import hue
from esx.fold.brief import brief
from tests.cli.support import esx, ndjson, on_terminal, one_line_error

if TYPE_CHECKING:
    from pathlib import Path

    from esx import EventStore


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


async def fill(store: EventStore, streams: int = 3) -> None:
    for n in range(streams):
        await store.append(
            f"orders-2026{n:04}-a-long-name-of-a-stream-{n:04}",
            [NewEvent("OrderPlaced", JsonText('{"total": 12.50, "city": "Ulm", "items": [1, 2]}'), {"user": "ann"})],
        )


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        ('{"amount": 50.00, "method": "card"}', "amount 50.00 · method card"),
        (
            '{"items": [1, 2], "to": {"city": "Ulm", "zip": "1"}, "note": ""}',
            'items [2] · to {city, zip} · note ""',
        ),
        ('{"ok": true, "n": null}', "ok true · n null"),
        ("[1, 2]", "[1, 2]"),
        ("{}", "{}"),
        ('{"a\\u001b": "\\u001b[2J"}', "a␛ ␛[2J"),
    ],
)
def test_data_in_a_few_words(payload: str, shown: str) -> None:
    assert brief(payload) == shown


def test_long_data_are_cut_and_not_parsed() -> None:
    assert len(brief('{"a": "' + "x" * 30_000 + '"}', 100)) == 100


def test_an_id_is_cut_in_its_middle() -> None:
    assert cut_middle("orders-20260001", 9).endswith("0001")
    assert len(cut_middle("orders-20260001", 9)) == 9
    assert cut_middle("short", 9) == "short"


def test_lines_fit_the_width_and_columns_do_not_jump(capsys: pytest.CaptureFixture[str]) -> None:
    table = CompactTable(
        OutputLines(), Form(compact=True, width=40), (Column(right=True), Column(yields=True), Column())
    )
    table.add(
        (
            CompactCell("1"),
            CompactCell("a-stream-with-a-very-long-name-0001"),
            CompactCell("and much more text than fits"),
        )
    )
    table.add((CompactCell("1000"), CompactCell("b"), CompactCell("x")))
    table.flush()
    table.add((CompactCell("2"), CompactCell("c"), CompactCell("y")))
    table.flush()
    first, second, third = capsys.readouterr().out.splitlines()
    assert len(first) <= 40
    assert "0001" in first
    assert first.endswith("…")
    assert second.index("x") == third.index("y")


def test_a_type_has_the_colour_of_its_category_and_red_if_it_says_failure() -> None:
    assert hue("payments-1", "PaymentRequested") == hue("payments-2", "PaymentTaken")
    assert hue("payments-1", "PaymentDeclined") == "31"


def test_csv_is_what_its_rfc_says(capsys: pytest.CaptureFixture[str]) -> None:
    lines = CsvLines()
    lines.row({"id": 'a "b", c', "n": None, "yes": True})
    lines.row({"id": "two\nlines", "n": 1, "yes": False})
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows == [["id", "n", "yes"], ['a "b", c', "", "true"], ["two\nlines", "1", "false"]]


@pytest.mark.parametrize(
    ("value", "command"), [("", None), ("cat", None), ("no-such-pager -x", None), ("sh -c x", "sh -c x")]
)
def test_which_pager(value: str, command: str | None) -> None:
    assert pager_command({"PAGER": value}) == command


async def test_a_pipe_gets_everything_and_csv_the_same_in_columns(dsn18: str, store18: EventStore) -> None:
    await fill(store18, 1)
    [line] = esx("read", "$all", "-d", dsn18).stdout.splitlines()
    assert line.endswith('@0  OrderPlaced  {"city": "Ulm", "items": [1, 2], "total": 12.50}  {"user": "ann"}')
    assert esx("read", "$all", "--as", "table", "-d", dsn18).stdout.splitlines() == [line]
    assert esx("read", "$all", "--as", "json", "-d", dsn18).stdout == esx("read", "$all", "--json", "-d", dsn18).stdout
    assert "\x1b[" in esx("read", "$all", "--color", "always", "-d", dsn18).stdout
    [row] = csv.DictReader(io.StringIO(esx("read", "$all", "--as", "csv", "-d", dsn18).stdout))
    [event] = ndjson(esx("read", "$all", "--json", "-d", dsn18).stdout)
    assert list(row) == list(event)
    assert row["data"] == '{"city": "Ulm", "items": [1, 2], "total": 12.50}'
    assert (row["created_at"], row["event_id"]) == (event["created_at"], event["event_id"])
    [stream] = csv.DictReader(io.StringIO(esx("streams", "--as", "csv", "-d", dsn18).stdout))
    assert stream["version"] == "0"
    [trailed] = csv.DictReader(io.StringIO(esx("trail", "1", "--as", "csv", "-d", dsn18).stdout))
    assert trailed["link"] == "root"
    error = one_line_error(esx("read", "$all", "--json", "--as", "csv", "-d", dsn18), 2)
    assert "give one of them" in error
    assert "--diff has no form in CSV" in one_line_error(esx("read", "s", "--diff", "--as", "csv", "-d", dsn18), 2)


@pytest.mark.slow
async def test_a_terminal_gets_lines_that_fit(dsn18: str, store18: EventStore) -> None:
    await fill(store18)
    for command in (["read", "$all"], ["streams"], ["trail", "1"], ["tail", "--from=start", "--no-follow"]):
        code, text = on_terminal(*command, "-d", dsn18, columns=60)
        assert code == 0, text
        assert "\x1b[" in text
        lines = plain(text).splitlines()
        assert [len(line) <= 60 for line in lines if "OrderPlaced" in line] == [True] * (1 if "trail" in command else 3)
    assert "\x1b[" not in on_terminal("read", "$all", "-d", dsn18, NO_COLOR="1")[1]
    assert '{"user": "ann"}' in on_terminal("read", "$all", "--wide", "--color=never", "-d", dsn18)[1]


@pytest.mark.slow
async def test_what_is_longer_than_the_screen_goes_to_the_pager(
    dsn18: str, store18: EventStore, tmp_path: Path
) -> None:
    await fill(store18, 40)
    seen = tmp_path / "seen"
    pager = f"tee {seen}"
    assert on_terminal("read", "$all", "--limit", "5", "-d", dsn18, PAGER=pager)[0] == 0
    assert on_terminal("read", "$all", "--json", "-d", dsn18, PAGER=pager)[0] == 0
    assert on_terminal("read", "$all", "--no-pager", "-d", dsn18, PAGER=pager)[0] == 0
    assert not seen.exists()
    code, text = on_terminal("read", "$all", "--type", "Order*", "-d", dsn18, PAGER=pager)
    assert code == 0
    assert plain(seen.read_text()).count("OrderPlaced") == plain(text).count("OrderPlaced") == 40
    # Who leaves the pager early has seen enough.
    code, text = on_terminal("streams", "-d", dsn18, PAGER="head -n 3")
    assert (code, text.count("OrderPlaced")) == (0, 2)

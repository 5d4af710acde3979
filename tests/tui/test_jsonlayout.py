from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest
from rich.cells import cell_len

from esx.text import visible
from esx.tui.event.jsonlayout import JsonLayout, coloured, pretty

HOSTILE = ["", "a", 'quote " and \\ slash', "{[,]}", "日本語", "e\u0301", "\u202eabc", "x" * 300, "\\", '\\"', ", ]"]


def decode(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=list)


def shown_row(layout: JsonLayout, row: int) -> str:
    pieces = (visible(layout.text[start:end]) for start, end, _role in layout.pieces(row))
    return " " * layout.indent(row) + "".join(pieces)


def random_json(rng: random.Random, depth: int = 0) -> str:
    kind = rng.randrange(7 if depth < 5 else 4)
    if kind == 0:
        return json.dumps(rng.choice(HOSTILE), ensure_ascii=rng.random() < 0.5)
    if kind == 1:
        return rng.choice(["true", "false", "null"])
    if kind in (2, 3):
        return rng.choice(["0", "-1.50", "123456789012345678901234567890.000000000100", "1E+400", "-0"])
    items = [random_json(rng, depth + 1) for _ in range(rng.randrange(5))]
    if kind == 4:
        return "[" + ", ".join(items) + "]"
    return "{" + ", ".join(f"{json.dumps(rng.choice(HOSTILE))}: {item}" for item in items) + "}"


def test_nothing_is_lost_and_nothing_is_changed() -> None:
    rng = random.Random(4)
    for _ in range(500):
        text = random_json(rng)
        assert decode(pretty(text)) == decode(text)


@pytest.mark.parametrize("width", [10, 24, 80])
def test_rows_fit_the_width_and_hold_everything(width: int) -> None:
    rng = random.Random(5)
    for _ in range(200):
        text = random_json(rng)
        layout = JsonLayout(text, width)
        while layout.advance(3):
            pass
        for index in range(len(layout)):
            assert cell_len(shown_row(layout, index)) <= max(width, 16)
        shown = "".join(layout.line(index).strip() for index in range(len(layout)))
        assert shown.replace(" ", "") == text.replace(" ", "")


def test_every_digit_stays() -> None:
    assert pretty('{"n": 123456789012345678901234567890.1234500}') == (
        '{\n  "n": 123456789012345678901234567890.1234500\n}'
    )


def test_layout_is_indented_and_empty_ones_stay_on_a_line() -> None:
    assert pretty('{"a": [1, {}], "b": [], "c": {"d": "x, y"}}').splitlines() == [
        "{",
        '  "a": [',
        "    1,",
        "    {}",
        "  ],",
        '  "b": [],',
        '  "c": {',
        '    "d": "x, y"',
        "  }",
        "}",
    ]


def test_roles_of_the_pieces() -> None:
    spans = [(span.text, span.role) for span in coloured('"key": "value",') if span.role]
    assert spans == [('"key"', "key"), (":", "punctuation"), ('"value"', "string"), (",", "punctuation")]
    assert [span.role for span in coloured("-1.5e3")] == ["number"]
    assert [span.role for span in coloured("null")] == ["literal"]


def test_large_values_are_laid_out_step_by_step() -> None:
    text = json.dumps({"rows": [{"i": index, "text": "x" * 50} for index in range(20_000)]})
    layout = JsonLayout(text, 60)
    assert layout.advance(100)
    assert 30 < len(layout) < 200
    assert layout.line(2) == "    {"
    while layout.advance():
        pass
    assert layout.done
    assert layout.line(len(layout) - 1) == "}"


def test_controls_and_reordering_are_shown_not_sent() -> None:
    layout = JsonLayout('"a\u202eb\u009bc"', 80)
    layout.advance()
    assert shown_row(layout, 0) == '"a\\u202eb\\u009bc"'

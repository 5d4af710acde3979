"""Folding and searching JSON that is laid out over rows: against what a plain walk over the value would show."""

from __future__ import annotations

import json
import random

import pytest

from esx.fold.value import dump, jsonpath, parse
from esx.tui.event.find import Matches
from esx.tui.event.folds import Folds
from esx.tui.event.jsonlayout import JsonLayout
from tests.tui.test_jsonlayout import random_json


def laid_out(text: str, width: int | None = 60) -> JsonLayout:
    layout = JsonLayout(text, width)
    while layout.advance():
        pass
    return layout


def visible_rows(folds: Folds) -> list[int]:
    """Return the rows that no folded ancestor hides, found one by one."""
    layout = folds.layout

    def shown(row: int) -> bool:
        if layout.closes(row) and folds.folded(layout.mate(row)):
            return False
        while (row := layout.parent(row)) < len(layout):
            if folds.folded(row):
                return False
        return True

    return [row for row in range(len(layout)) if shown(row)]


@pytest.mark.parametrize("seed", range(5))
def test_folding_shows_what_no_fold_hides(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        layout = JsonLayout("[" + ", ".join(random_json(rng) for _ in range(8)) + "]", 60)
        folds = Folds(layout)
        for _ in range(60):
            what = rng.randrange(10)
            if what < 4:
                layout.advance(rng.randrange(1, 12))
                folds.grow()
            elif what < 8 and len(folds):
                folds.toggle(rng.randrange(len(folds)))
            elif what == 8:
                folds.fold_from(rng.choice([None, 0, 1, 2]))
            elif len(layout):
                row = rng.randrange(len(layout))
                folds.reveal(row)
                folds.grow()
                assert folds.rows[folds.reveal(row)] == row
            if layout.done:
                folds.grow()
                assert list(folds.rows) == visible_rows(folds)
        while layout.advance():
            pass
        folds.grow()
        assert list(folds.rows) == visible_rows(folds)
        folds.fold_from(None)
        assert list(folds.rows) == list(range(len(layout)))


@pytest.mark.parametrize("width", [None, 24])
def test_each_row_knows_its_path_and_its_value(width: int | None) -> None:
    rng = random.Random(6)
    for _ in range(100):
        layout = laid_out(dump(parse(random_json(rng))), width)
        whole = parse(layout.text)
        for row in range(len(layout)):
            found = whole
            for step in layout.path(row):
                found = found[step]
            assert layout.value(row) == dump(found), jsonpath(layout.path(row))


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["[x], ", '\\"{', "\\\\", "é}"])
def test_very_long_strings_are_one_value(piece: str) -> None:
    long = '"' + piece * 9000 + '"'
    layout = laid_out(f'{{"a": [{long}, 1], {long}: 2}}')
    values = {jsonpath(layout.path(row)): layout.value(row) for row in range(len(layout))}
    assert (values["$.a[0]"], values["$.a[1]"]) == (long, "1")
    assert layout.path(len(layout) - 2) == (json.loads(long),)


def test_any_depth_and_a_large_value() -> None:
    deep = laid_out("[" * 20_000 + "1" + "]" * 20_000)
    folds = Folds(deep)
    folds.grow()
    assert deep.path(20_000) == (0,) * 20_000
    folds.fold_from(1)
    assert len(folds) == 3
    assert folds.reveal(20_000) == 20_000
    assert len(folds) == 40_001
    flat = laid_out(json.dumps({"rows": [{"n": n} for n in range(5000)]}))
    assert flat.children(1) == 5000
    assert flat.value(2) == '{"n": 0}'


def test_search() -> None:
    text = '{"Name": "Ann", "names": ["ann", "ANN", "Ünn"]}' * 3
    for needle, count in (("ann", 9), ("Ann", 3), ("name", 6), ('"ann"', 9), ("ünn", 3), ("x", 0), ("", 0), (".", 0)):
        matches = Matches(text, needle)
        while matches.advance(5):
            pass
        assert len(matches) == count, needle
        assert [text[start:end].lower() for start, end in matches.within(0, len(text))] == [needle.lower()] * count
    assert matches.within(0, 5) == []

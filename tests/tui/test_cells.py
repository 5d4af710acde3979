from __future__ import annotations

import pytest
from rich.cells import cell_len

from esx.text import size_of
from esx.tui.cells import fit, tint_style, wrap


@pytest.mark.parametrize("text", ["", "abc", "日本語日本語", "e\u0301" * 20, "a" * 100_000, "日" * 9, "🎉🎉🎉🎉🎉"])
@pytest.mark.parametrize("width", [1, 2, 5, 9, 10])
def test_fit_is_exact(text: str, width: int) -> None:
    assert cell_len(fit(text, width)) == width
    assert cell_len(fit(text, width, right=True)) == width


def test_wrap_loses_nothing() -> None:
    text = "日本 words e\u0301 " * 20
    pieces = wrap(text, 11)
    assert "".join(pieces) == text
    assert all(cell_len(piece) <= 11 for piece in pieces)
    assert wrap("", 5) == [""]


def test_a_type_keeps_its_colour() -> None:
    assert tint_style("OrderPlaced", "#1e1e1e") == tint_style("OrderPlaced", "#1e1e1e")
    assert tint_style("OrderPlaced", "#1e1e1e") != tint_style("OrderPlaced", "#d8d8d8")


def test_sizes() -> None:
    assert [size_of(0), size_of(812), size_of(4_200_000)] == ["0 B", "812 B", "4.2 MB"]

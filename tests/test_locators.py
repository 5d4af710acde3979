"""Locators and bookmarks, without a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esx.bookmarks import Bookmarks, BookmarksUnusable
from esx.locators import Locator, parse_locator

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 8, 7, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "locator"),
    [
        ("esx://shop/orders-42@7", Locator("shop", "orders-42", 7)),
        ("esx://shop/orders-42", Locator("shop", "orders-42")),
        ("esx:///orders-42@0", Locator(None, "orders-42", 0)),
        ("esx://shop/$all@4000", Locator("shop", None, 4000)),
        ("esx://shop/%24all", Locator("shop", "$all")),
        ("esx://embedded/a%2Fb%40c@1", Locator("embedded", "a/b@c", 1)),
    ],
)
def test_forms(text: str, locator: Locator) -> None:
    assert parse_locator(text) == locator
    assert locator.text == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("orders-42@7", "is no locator: esx://CONNECTION/STREAM@NUMBER"),
        ("esx://shop", "names no stream"),
        ("esx://shop/", "names no stream"),
        ("esx://shop/a/b", "write %2F"),
        ("esx://shop/a@b", "write %40"),
        ("esx://shop/a@" + "9" * 20, "has no number"),
        ("esx://shop/a@\x1b[2J", "␛"),
    ],
)
def test_what_is_none_is_said_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_locator(text)
    assert reason in str(refused.value)
    assert "\x1b" not in str(refused.value)


@given(st.none() | st.text(min_size=1), st.none() | st.text(min_size=1), st.none() | st.integers(0, 2**63 - 1))
def test_a_locator_is_read_back_as_it_was(connection: str | None, stream: str | None, number: int | None) -> None:
    locator = Locator(connection, stream, number)
    assert parse_locator(locator.text) == locator
    assert locator.text.isascii()


def test_bookmarks_are_kept_for_each_database(tmp_path: Path) -> None:
    kept = Bookmarks(tmp_path / "esx" / "bookmarks.ndjson")
    assert kept.all() == []
    first = kept.add("shop", Locator("shop", "orders-1", 3), "here\nit began", NOW)
    kept.add("other", Locator(None, "a"), now=NOW)
    second = kept.add("shop", Locator("shop", None, 9), now=NOW)
    assert kept.of_database("shop") == [first, second]
    assert kept.remove(first)
    assert not kept.remove(first)
    assert [each.locator.text for each in kept.all()] == ["esx:///a", "esx://shop/$all@9"]
    link = Bookmarks(tmp_path / "link")
    link.path.symlink_to(kept.path)
    with pytest.raises(BookmarksUnusable, match="cannot be written"):
        link.add("shop", Locator(None, "b"))
    assert kept.path.stat().st_mode & 0o077 == 0
    with kept.path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(BookmarksUnusable, match=r"line 3 of .* is no bookmark .* remove that line"):
        kept.all()

"""Completing a filter from what is in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esx.filter_language import USUAL, Dialect
from esx.filters import Filter
from esx.fold.vocabulary import Vocabulary, complete, types_like, vocabulary_of
from esx.model import NewEvent

if TYPE_CHECKING:
    from esx.eventstore import EventStore

KNOWN = Vocabulary(
    types=("OrderPlaced", "Order paid", "Shipped", "evil\x1b[2J", 'quo"te'),
    streams=("orders-*", "carts-*"),
    data={
        "OrderPlaced": ("$.amount", "$.items[*]", "$.items[*].sku"),
        "Shipped": ("$.at", '$."a b"'),
        "evil\x1b[2J": ("$.\x1b",),
    },
    metadata={"Shipped": ("$metadata.user",)},
)
OF_ONE = Dialect(bare="type")


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("Ord", "OrderPlaced"),
        ("type:ship", "type:Shipped"),
        ('"Order ', '"Order paid"'),
        ("Shipped $.a", "Shipped $.at"),
        ("Sh* $.a", "Sh* $.at"),
        ("None $.a", "None $.amount"),
        ("$.am", "$.amount"),
        ("exists($.items[*].", "exists($.items[*].sku"),
        ("$.amount > 3 && $.a", "$.amount > 3 && $.amount"),
        ("Shipped $.A", "Shipped $.at"),
        ("$met", "$metadata.user"),
        ("Shipped si", "Shipped since:"),
        ("evil", None),
        ("quo", None),
        ("$.\x1b", None),
        ("OrderPlaced", None),
        ("OrderPlaced ", None),
        ("user:an", None),
        ("", None),
    ],
)
def test_the_last_word_among_the_events_of_one_stream(text: str, completed: str | None) -> None:
    assert complete(text, KNOWN, OF_ONE) == completed


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("or", "orders-*"),
        ("stream:ca", "stream:carts-*"),
        ("orders-* ty", "orders-* type:"),
        ("orders-* type:Or", "orders-* type:OrderPlaced"),
        ('orders-* type:"Order p', 'orders-* type:"Order paid"'),
        ("orders-* type:Shipped $.", "orders-* type:Shipped $.at"),
        ("orders-* type:[ $.", "orders-* type:[ $.amount"),
    ],
)
def test_the_last_word_where_a_word_is_a_stream(text: str, completed: str) -> None:
    assert complete(text, KNOWN, USUAL) == completed


def test_where_nothing_passes_the_types_that_may_be_meant_are_named() -> None:
    known = ["OrderPlaced", "shop.Paid"]
    assert types_like(Filter(event_type="OrderPlace"), known).endswith("did you mean OrderPlaced?")
    assert types_like(Filter(event_type="Order*"), known) == ""
    assert types_like(Filter(stream="Order*"), known).endswith("is a stream: did you mean type:Order*?")
    assert types_like(Filter(stream="order*", any_case=True), known).endswith("did you mean type:order*?")
    assert types_like(Filter(stream="orders-*"), known) == ""
    assert types_like(Filter(stream="*"), known) == ""
    assert types_like(Filter(mentions=("1092",)), known) == ""


async def test_the_words_come_from_the_store(store18: EventStore) -> None:
    await store18.append("orders-1", [NewEvent("Placed", {"total": 1, "items": [{"sku": "x"}]}, {"user": "ann"})])
    await store18.append("plain", [NewEvent("Placed", {"total": 1})])
    known = vocabulary_of(await store18.types(samples=10), store18.separator)
    assert known.types == ("Placed",)
    assert set(known.streams) == {"orders-*", "plain-*"}
    assert known.data["Placed"] == ("$.items", "$.items[*]", "$.items[*].sku", "$.total")
    assert known.metadata["Placed"] == ("$metadata.user",)
    for path in known.data["Placed"]:
        assert complete(path[:-1], known, USUAL)

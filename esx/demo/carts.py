# ruff: noqa: ARG001 - the functions that decide share one signature (Step.decide)
"""What can be done with a cart, until it is checked out or abandoned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from esx.demo.goods import PRODUCTS
from esx.demo.money import ZERO, percent
from esx.demo.nouns import Fact, Outcome, Step, has, holder, order_of_cart

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal
    from random import Random

_COUPONS = (("WELCOME5", 5), ("TEATIME10", 10), ("¡HOLA!15", 15))
_LEFT = ("inactive", "inactive", "session ended", "customer emptied it")


class Line(NamedTuple):
    """So many of one thing in a cart."""

    name: str
    unit_price: Decimal
    quantity: int


def lines(facts: Sequence[Fact]) -> dict[str, Line]:
    """Return what is in the cart after these facts, by sku."""
    found: dict[str, Line] = {}
    for fact in facts:
        data = fact.data
        if fact.event_type == "ItemAdded":
            before = found.get(data["sku"])
            quantity = data["quantity"] + (before.quantity if before else 0)
            found[data["sku"]] = Line(data["name"], data["unit_price"], quantity)
        elif fact.event_type == "ItemRemoved":
            found.pop(data["sku"], None)
        elif fact.event_type == "QuantityChanged":
            found[data["sku"]] = found[data["sku"]]._replace(quantity=data["to"])
    return found


def is_open(facts: Sequence[Fact]) -> bool:
    """Return whether the cart can still change."""
    return bool(facts) and not has(facts, "CartCheckedOut", "CartAbandoned")


def start(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Begin a cart."""
    if facts:
        return None
    source = rng.choice(("web", "web", "app"))
    data = {"account_id": step.about["account_id"], "currency": "EUR", "channel": source}
    return Outcome("CartCreated", data, holder(step.about["account_id"]).login, source)


def add(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Put something in."""
    if not is_open(facts):
        return None
    # The cheaper of two: a teapot is a rarer thing to buy than tea.
    product = min(rng.choice(PRODUCTS), rng.choice(PRODUCTS), key=lambda product: product.price)
    quantity = rng.choice((1, 1, 1, 1, 2, 2, 3))
    data = {"sku": product.sku, "name": product.name, "unit_price": product.price, "quantity": quantity}
    return _by_customer("ItemAdded", data, facts)


def remove(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Take something out again."""
    there = lines(facts)
    if not is_open(facts) or not there:
        return None
    sku = rng.choice(list(there))
    return _by_customer("ItemRemoved", {"sku": sku, "quantity": there[sku].quantity}, facts)


def change_quantity(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Take more or fewer of something."""
    there = lines(facts)
    if not is_open(facts) or not there:
        return None
    sku = rng.choice(list(there))
    before = there[sku].quantity
    after = before + 1 if before == 1 else rng.choice((before - 1, before + 1))
    return _by_customer("QuantityChanged", {"sku": sku, "from": before, "to": after}, facts)


def apply_coupon(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Use a coupon, one a cart."""
    if not is_open(facts) or has(facts, "CouponApplied"):
        return None
    code, rate = rng.choice(_COUPONS)
    return _by_customer("CouponApplied", {"code": code, "percent": rate}, facts)


def check_out(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Check out: the cart becomes an order."""
    there = lines(facts)
    if not is_open(facts) or not there:
        return None
    items = [
        {"sku": sku, "name": line.name, "unit_price": line.unit_price, "quantity": line.quantity,
         "line_total": line.unit_price * line.quantity}
        for sku, line in there.items()
    ]  # fmt: skip
    subtotal = sum((line.unit_price * line.quantity for line in there.values()), ZERO)
    rate = max((fact.data["percent"] for fact in facts if fact.event_type == "CouponApplied"), default=0)
    discount = percent(subtotal, rate)
    data = {
        "order_id": order_of_cart(step.stream_id),
        "account_id": facts[0].data["account_id"],
        "items": items,
        "subtotal": subtotal,
        "discount": discount,
        "total": subtotal - discount,
        "currency": "EUR",
    }
    return _by_customer("CartCheckedOut", data, facts)


def abandon(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Give up a cart that nobody came back to."""
    if not is_open(facts):
        return None
    value = sum((line.unit_price * line.quantity for line in lines(facts).values()), ZERO)
    return Outcome("CartAbandoned", {"reason": rng.choice(_LEFT), "value": value}, "scheduler", "cart-sweeper")


def _by_customer(event_type: str, data: dict[str, Any], facts: Sequence[Fact]) -> Outcome:
    first = facts[0]
    return Outcome(event_type, data, first.user, first.data["channel"])

# ruff: noqa: ARG001 - the functions that decide share one signature (Step.decide)
"""What can be done with an order, from placing it to the parcel at the door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esx.demo.money import ZERO, cents, percent
from esx.demo.nouns import Fact, Outcome, Step, has, holder
from esx.demo.people import OFFICE, PACKERS, SHOP_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

_FREE_SHIPPING_FROM = cents(6000)
_SHIPPING = cents(490)
_VAT = 19
_CARRIERS = ("Northway Parcel", "Velo Express", "Paketpost")
_HUBS = ("Rotterdam", "Kassel", "Zaragoza", "Poznań", "Malmö", "Lyon")
_RETURNED = ("arrived damaged", "does not fit", "ordered by mistake", "zerbrochen angekommen")
_REVIEWS = (
    "Works as described.",
    "¡Excelente! Llegó en dos días.",
    "Très bon, merci !",
    "很好喝，下次还买",
    "Schöner Becher, leider ein Kratzer.",
    "Better than the last one 🙂",
)
_LEGAL = (
    "Goods remain our property until paid in full.",
    "You may return unused goods within 30 days of delivery; we pay the postage for damaged ones.",
    "Prices include value added tax at the rate shown. This invoice was made by a machine and needs no signature.",
)


def place(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Place the order that the cart has become."""
    if facts:
        return None
    cart = step.about
    who = holder(cart["account_id"])
    shipping = ZERO if cart["total"] >= _FREE_SHIPPING_FROM else _SHIPPING
    total = cart["total"] + shipping
    data = {
        "cart_id": cart["cart_id"],
        "account_id": cart["account_id"],
        "customer": {"name": who.name, "email": who.email},
        "shipping_address": who.address,
        "items": cart["items"],
        "discount": cart["discount"],
        "shipping": shipping,
        "tax": percent(total, _VAT, 100 + _VAT),
        "total": total,
        "currency": "EUR",
    }
    return Outcome("OrderPlaced", data, who.login, "checkout")


def mark_paid(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Note that the payment was captured."""
    if not facts or has(facts, "OrderPaid", "OrderCancelled"):
        return None
    data = {"payment_id": step.about["payment_id"], "amount": step.about["amount"]}
    return Outcome("OrderPaid", data, "svc-orders", "orders")


def cancel(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """End the order here: not paid, or not in stock."""
    if not facts or has(facts, "OrderCancelled", "OrderShipped"):
        return None
    by = rng.choice(OFFICE) if has(facts, "OrderPaid") else "svc-orders"
    return Outcome("OrderCancelled", {"reason": step.about["reason"]}, by, "orders")


def issue_invoice(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Write the invoice, a larger event."""
    if has(facts, "InvoiceIssued", "OrderCancelled"):
        return None
    placed = facts[0].data
    positions = [
        {
            "position": place,
            **item,
            "vat": {"rate": _VAT, "amount": percent(item["line_total"], _VAT, 100 + _VAT)},
        }
        for place, item in enumerate(placed["items"], 1)
    ]
    data: dict[str, Any] = {
        "invoice_id": f"R-{step.stream_id.partition('-')[2]}",
        "seller": {
            "name": SHOP_NAME,
            "address": {"street": "Speicherstraße 4", "postcode": "20457", "city": "Hamburg", "country": "DE"},
            "contact": "office@example.com",
        },
        "buyer": {**placed["customer"], "address": placed["shipping_address"]},
        "positions": positions,
        "shipping": placed["shipping"],
        "discount": placed["discount"],
        "total": placed["total"],
        "tax": placed["tax"],
        "currency": placed["currency"],
        "legal": _LEGAL,
    }
    return Outcome("InvoiceIssued", data, "svc-billing", "billing")


def pack(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Pack it in the warehouse."""
    if not facts or has(facts, "OrderPacked", "OrderCancelled"):
        return None
    things = sum(item["quantity"] for item in facts[0].data["items"])
    data = {"parcels": 1 + things // 8, "weight_kg": cents(rng.randint(40, 90) * things)}
    return Outcome("OrderPacked", data, rng.choice(PACKERS), "warehouse")


def ship(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Hand it to the carrier."""
    if not facts or has(facts, "OrderShipped", "OrderCancelled"):
        return None
    data = {"carrier": rng.choice(_CARRIERS), "tracking": f"{rng.randrange(10**12):012d}"}
    return Outcome("OrderShipped", data, rng.choice(PACKERS), "warehouse")


def scan(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Scan the parcel at a hub."""
    if not has(facts, "OrderShipped") or has(facts, "OrderDelivered"):
        return None
    return Outcome(
        "ParcelScanned", {"tracking": step.about["tracking"], "hub": rng.choice(_HUBS)}, "svc-carrier", "edi"
    )


def deliver(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Deliver the parcel."""
    if not has(facts, "OrderShipped") or has(facts, "OrderDelivered"):
        return None
    data = {
        "tracking": step.about["tracking"],
        "left_with": rng.choice(("customer", "customer", "neighbour", "locker")),
    }
    return Outcome("OrderDelivered", data, "svc-carrier", "edi")


def review(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Review what came."""
    if not facts or has(facts, "OrderReviewed", "ReturnRequested"):
        return None
    data = {"stars": rng.choice((5, 5, 4, 4, 3)), "text": rng.choice(_REVIEWS)}
    return Outcome("OrderReviewed", data, facts[0].user, "web")


def request_return(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Ask to give it back."""
    if not has(facts, "OrderDelivered") or has(facts, "ReturnRequested"):
        return None
    return Outcome("ReturnRequested", {"reason": rng.choice(_RETURNED)}, facts[0].user, "web")


def close_refunded(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Close the order: the customer has the money back."""
    if not facts or has(facts, "OrderRefunded"):
        return None
    data = {"payment_id": step.about["payment_id"], "amount": step.about["amount"]}
    return Outcome("OrderRefunded", data, "svc-orders", "orders")

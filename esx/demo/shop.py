"""The business: what customers start by themselves, and what follows from each event.

The history and the live traffic both play this one game. `react` looks at a stream and says what happens next;
the step's `decide` (in accounts, carts, orders and payments) then looks at its own stream and makes the event.
Each event has at most one consequence, so a business transaction is a chain through several streams.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from esx.demo import accounts, carts, orders, payments
from esx.demo.money import cents
from esx.demo.nouns import SHOP_ACCOUNT, Fact, Step, account_stream, cart_stream, has, payment_of_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

CATEGORIES = ("accounts", "orders", "payments", "carts")
WINDOW = 100
"""How many facts of a stream, the newest, are enough to decide."""

_OURS = re.compile(r"(accounts|carts|orders)-[1-9][0-9]{3,9}|payments-[1-9][0-9]{3,9}-[12]")
_MINUTE = 60.0
_HOUR = 3600.0


def is_ours(stream_id: str) -> bool:
    """Return whether a stream's name is one that the shop would give."""
    return _OURS.fullmatch(stream_id) is not None


# -- what begins a business transaction -----------------------------------------------------------------------


def open_account(number: int) -> Step:
    """Let a new customer come."""
    return Step(account_stream(number), accounts.open_account, {})


def open_shop() -> Step:
    """Open the shop's own account: the first event of the history."""
    return Step(SHOP_ACCOUNT, accounts.open_account, {})


def deposit(account_id: str) -> Step:
    """Put money into an account."""
    return Step(account_id, accounts.deposit, {})


def withdraw(account_id: str) -> Step:
    """Take money out of an account."""
    return Step(account_id, accounts.withdraw, {})


def change_contact(account_id: str) -> Step:
    """Change a customer's phone number or address."""
    return Step(account_id, accounts.change_contact, {})


def start_cart(number: int, account_id: str) -> Step:
    """Let a customer begin to shop."""
    return Step(cart_stream(number), carts.start, {"account_id": account_id})


def settle() -> Step:
    """Make the report of the night."""
    return Step(SHOP_ACCOUNT, accounts.settle, {})


# -- what follows ---------------------------------------------------------------------------------------------


def react(facts: Sequence[Fact], rng: Random) -> Step | None:
    """Return what follows from the last of a stream's facts, or None where nothing does."""
    reaction = _REACTIONS.get(facts[-1].event_type)
    return None if reaction is None else reaction(facts, rng)


def goes_on(event_type: str) -> bool:
    """Return whether something can follow from events of this type."""
    return event_type in _REACTIONS


def _then(facts: Sequence[Fact], stream_id: str, decide: Any, wait: float, **more: Any) -> Step:
    cause = facts[-1]
    return Step(stream_id, decide, {**cause.data, **more} if more else cause.data, wait, cause)


def _some(rng: Random, mean: float) -> float:
    """Return a time around `mean`: never nothing, now and then long."""
    return mean * (0.3 + rng.expovariate(1 / 0.7))


def _after_opening(facts: Sequence[Fact], rng: Random) -> Step | None:
    stream_id = facts[-1].stream_id
    if stream_id == SHOP_ACCOUNT:
        return _then(facts, stream_id, accounts.deposit, _some(rng, _MINUTE), deposit=cents(500000))
    return _then(facts, stream_id, accounts.verify_email, _some(rng, 5 * _MINUTE))


def _after_verifying(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, facts[-1].stream_id, accounts.deposit, _some(rng, 20 * _MINUTE))


def _after_deposit(facts: Sequence[Fact], rng: Random) -> Step | None:
    order = facts[-1].data.get("for_order")
    if order is None:
        return None
    return _then(facts, payment_of_order(order["order_id"], 2), payments.request, _some(rng, 30), **order)


def _in_cart(facts: Sequence[Fact], rng: Random) -> Step | None:
    if not carts.is_open(facts):
        return None
    stream_id, chance = facts[-1].stream_id, rng.random()
    if not carts.lines(facts):
        if chance < 0.1:
            return _then(facts, stream_id, carts.abandon, 2 * _HOUR)
        return _then(facts, stream_id, carts.add, _some(rng, 1.5 * _MINUTE))
    if chance < 0.07 or len(facts) > WINDOW // 2:
        return _then(facts, stream_id, carts.abandon, _some(rng, 3 * _HOUR))
    if chance < 0.20:
        return _then(facts, stream_id, carts.check_out, _some(rng, 3 * _MINUTE))
    if chance < 0.30:
        return _then(facts, stream_id, carts.remove, _some(rng, _MINUTE))
    if chance < 0.42:
        return _then(facts, stream_id, carts.change_quantity, _some(rng, _MINUTE))
    if chance < 0.48 and not has(facts, "CouponApplied"):
        return _then(facts, stream_id, carts.apply_coupon, _some(rng, _MINUTE))
    return _then(facts, stream_id, carts.add, _some(rng, 2 * _MINUTE))


def _after_check_out(facts: Sequence[Fact], rng: Random) -> Step | None:
    cart = facts[-1]
    return _then(facts, cart.data["order_id"], orders.place, _some(rng, 1), cart_id=cart.stream_id)


def _after_placing(facts: Sequence[Fact], rng: Random) -> Step | None:
    order_id = facts[-1].stream_id
    return _then(facts, payment_of_order(order_id, 1), payments.request, _some(rng, 1), order_id=order_id)


def _after_request(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, facts[-1].stream_id, payments.authorise, _some(rng, 2))


def _after_authorising(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, facts[-1].data["account_id"], accounts.debit, _some(rng, 2))


def _after_debit(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, SHOP_ACCOUNT, accounts.receive, _some(rng, 3))


def _after_refusal(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, facts[-1].data["payment_id"], payments.decline, _some(rng, 1))


def _after_receiving(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, facts[-1].data["payment_id"], payments.capture, _some(rng, 2))


def _after_capture(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, facts[-1].data["order_id"], orders.mark_paid, _some(rng, 1))


def _after_decline(facts: Sequence[Fact], rng: Random) -> Step | None:
    declined = facts[-1].data
    first = declined["payment_id"].endswith("-1")
    if first and declined["reason"] == "insufficient funds" and rng.random() < 0.7:
        order = {"order_id": declined["order_id"], "account_id": declined["account_id"], "total": declined["amount"]}
        topped_up = declined["amount"] + cents(rng.randint(0, 6) * 500)
        wait = _some(rng, 40 * _MINUTE)
        return _then(facts, declined["account_id"], accounts.deposit, wait, deposit=topped_up, for_order=order)
    return _then(facts, declined["order_id"], orders.cancel, _some(rng, 2 * _HOUR))


def _after_paying(facts: Sequence[Fact], rng: Random) -> Step | None:
    order_id = facts[-1].stream_id
    if rng.random() < 0.03:
        return _then(facts, order_id, orders.cancel, _some(rng, 3 * _HOUR), reason="out of stock")
    return _then(facts, order_id, orders.issue_invoice, _some(rng, 5))


def _after_invoice(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, facts[-1].stream_id, orders.pack, _some(rng, 4 * _HOUR))


def _after_packing(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, facts[-1].stream_id, orders.ship, _some(rng, 3 * _HOUR))


def _under_way(facts: Sequence[Fact], rng: Random) -> Step | None:
    scans = sum(fact.event_type == "ParcelScanned" for fact in facts)
    if scans == 0 or (scans == 1 and rng.random() < 0.5):
        return _then(facts, facts[-1].stream_id, orders.scan, _some(rng, 10 * _HOUR))
    return _then(facts, facts[-1].stream_id, orders.deliver, _some(rng, 12 * _HOUR))


def _after_delivery(facts: Sequence[Fact], rng: Random) -> Step | None:
    order_id, chance = facts[-1].stream_id, rng.random()
    if chance < 0.07:
        return _then(facts, order_id, orders.request_return, _some(rng, 30 * _HOUR))
    if chance < 0.3:
        return _then(facts, order_id, orders.review, _some(rng, 20 * _HOUR))
    return None


def _give_back(facts: Sequence[Fact], rng: Random) -> Step | None:
    payment = next((fact.data["payment_id"] for fact in facts if fact.event_type == "OrderPaid"), None)
    return None if payment is None else _then(facts, payment, payments.refund, _some(rng, 2 * _HOUR))


def _after_refund(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, facts[-1].data["account_id"], accounts.credit, _some(rng, 3))


def _after_credit(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, SHOP_ACCOUNT, accounts.pay_out_refund, _some(rng, 3))


def _after_pay_out(facts: Sequence[Fact], rng: Random) -> Step | None:
    return _then(facts, facts[-1].data["order_id"], orders.close_refunded, _some(rng, 2))


_REACTIONS: dict[str, Callable[[Sequence[Fact], Random], Step | None]] = {
    "AccountOpened": _after_opening,
    "EmailVerified": _after_verifying,
    "MoneyDeposited": _after_deposit,
    "CartCreated": _in_cart,
    "ItemAdded": _in_cart,
    "ItemRemoved": _in_cart,
    "QuantityChanged": _in_cart,
    "CouponApplied": _in_cart,
    "CartCheckedOut": _after_check_out,
    "OrderPlaced": _after_placing,
    "PaymentRequested": _after_request,
    "PaymentAuthorised": _after_authorising,
    "AccountDebited": _after_debit,
    "DebitRejected": _after_refusal,
    "PaymentReceived": _after_receiving,
    "PaymentCaptured": _after_capture,
    "PaymentDeclined": _after_decline,
    "OrderPaid": _after_paying,
    "InvoiceIssued": _after_invoice,
    "OrderPacked": _after_packing,
    "OrderShipped": _under_way,
    "ParcelScanned": _under_way,
    "OrderDelivered": _after_delivery,
    "OrderCancelled": _give_back,
    "ReturnRequested": _give_back,
    "PaymentRefunded": _after_refund,
    "AccountCredited": _after_credit,
    "RefundPaidOut": _after_pay_out,
}

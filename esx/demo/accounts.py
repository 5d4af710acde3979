# ruff: noqa: ARG001 - the functions that decide share one signature (Step.decide)
"""What can be done with an account. Every change of its balance says the new balance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esx.demo.money import ZERO, cents, percent
from esx.demo.nouns import SHOP_ACCOUNT, Fact, Outcome, Step, has, holder
from esx.demo.people import OFFICE, SHOP_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal
    from random import Random

_CURRENCY = "EUR"
_SETTLE_FROM = 5


def balance(facts: Sequence[Fact]) -> Decimal:
    """Return the balance after these facts."""
    for fact in reversed(facts):
        if "balance" in fact.data:
            found: Decimal = fact.data["balance"]
            return found
    return ZERO


def open_account(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Open an account, a customer's or the shop's own."""
    if facts:
        return None
    if step.stream_id == SHOP_ACCOUNT:
        data = {"owner": SHOP_NAME, "email": "office@example.com", "currency": _CURRENCY, "balance": ZERO}
        return Outcome("AccountOpened", data, OFFICE[0], "backoffice")
    who = holder(step.stream_id)
    return Outcome(
        "AccountOpened",
        {"owner": who.name, "email": who.email, "address": who.address, "currency": _CURRENCY, "balance": ZERO},
        who.login,
        rng.choice(("web", "web", "app")),
    )


def verify_email(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Have the customer follow the link in the mail."""
    if has(facts, "EmailVerified"):
        return None
    return Outcome("EmailVerified", {"email": step.about["email"]}, holder(step.stream_id).login, "mail-link")


def change_contact(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Correct the customer's data; the balance stays."""
    if not facts:
        return None
    who = holder(step.stream_id)
    changed: dict[str, Any] = rng.choice(
        (
            {"phone": f"+44 1632 960{rng.randint(0, 999):03d}"},  # a range kept free for made-up numbers
            {"newsletter": rng.random() < 0.3},
            {"address": {**who.address, "note": rng.choice(("Bitte bei Nachbarn abgeben", "ring twice", "请放门口"))}},
        )
    )
    return Outcome("ContactDetailsChanged", {"changed": changed}, who.login, "web")


def deposit(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Bring money in: the customer's, or the shop's takings."""
    if not facts:
        return None
    if step.stream_id == SHOP_ACCOUNT:
        user, source, method = rng.choice(OFFICE), "backoffice", "cash"
        reference = f"till {rng.randint(1, 3)}"
    else:
        user, source = holder(step.stream_id).login, rng.choice(("web", "app"))
        method = rng.choice(("bank transfer", "card", "card", "direct debit"))
        reference = f"{rng.randrange(16**8):08X}"
    amount = step.about.get("deposit") or cents(rng.choice((5000, 5000, 7550, 10000, 12500, 15000, 20000, 30000)))
    data = {"amount": amount, "method": method, "reference": reference, "balance": balance(facts) + amount}
    if "for_order" in step.about:
        data["for_order"] = step.about["for_order"]
    return Outcome("MoneyDeposited", data, user, source)


def withdraw(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Take money out for the customer, if there is enough."""
    if not facts:
        return None
    amount, there = cents(rng.randint(4, 40) * 250), balance(facts)
    user = holder(step.stream_id).login
    if amount > there:
        reason = {"amount": amount, "reason": "insufficient funds", "balance": there}
        return Outcome("WithdrawalRejected", reason, user, "web")
    data = {"amount": amount, "to": f"account ending in {rng.randrange(10000):04d}", "balance": there - amount}
    return Outcome("MoneyWithdrawn", data, user, "web")


def debit(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Take an authorised payment from the account, once."""
    about, there = step.about, balance(facts)
    if not facts or _handled(facts, about, "AccountDebited", "DebitRejected"):
        return None
    if about["amount"] > there:
        refused = {**_payment(about), "reason": "insufficient funds", "balance": there}
        return Outcome("DebitRejected", refused, "svc-billing", "billing")
    return Outcome("AccountDebited", {**_payment(about), "balance": there - about["amount"]}, "svc-billing", "billing")


def credit(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Put a refund into the account, once."""
    about = step.about
    if not facts or _handled(facts, about, "AccountCredited"):
        return None
    data = {**_payment(about), "reason": about["reason"], "balance": balance(facts) + about["amount"]}
    return Outcome("AccountCredited", data, "svc-billing", "billing")


def receive(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Give the shop a payment, less the fee, once."""
    about = step.about
    if not facts or _handled(facts, about, "PaymentReceived"):
        return None
    fee = percent(about["amount"], 14, 1000) + cents(25)
    net = about["amount"] - fee
    data = {**_payment(about), "fee": fee, "net": net, "balance": balance(facts) + net}
    return Outcome("PaymentReceived", data, "svc-billing", "billing")


def pay_out_refund(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Take a refund from the shop, once."""
    about = step.about
    if not facts or _handled(facts, about, "RefundPaidOut"):
        return None
    data = {**_payment(about), "balance": balance(facts) - about["amount"]}
    return Outcome("RefundPaidOut", data, "svc-billing", "billing")


def settle(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Report the payments since the last report: the largest events of the store."""
    lines: list[dict[str, Any]] = []
    for fact in reversed(facts):
        if fact.event_type == "SettlementReported":
            break
        if fact.event_type == "PaymentReceived":
            lines.append({name: fact.data[name] for name in ("payment_id", "order_id", "amount", "fee", "net")})
    if len(lines) < _SETTLE_FROM:
        return None
    lines.reverse()
    totals = {name: sum((line[name] for line in lines), ZERO) for name in ("amount", "fee", "net")}
    data = {"payments": len(lines), "totals": totals, "lines": lines, "balance": balance(facts)}
    return Outcome("SettlementReported", data, "scheduler", "billing")


def _payment(about: Any) -> dict[str, Any]:
    """Return what every event on a payment's way carries, so that whoever goes on need not look it up."""
    return {name: about[name] for name in ("payment_id", "order_id", "account_id", "amount")}


def _handled(facts: Sequence[Fact], about: Any, *event_types: str) -> bool:
    payment = about["payment_id"]
    return any(fact.event_type in event_types and fact.data["payment_id"] == payment for fact in facts)

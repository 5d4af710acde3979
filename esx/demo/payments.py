# ruff: noqa: ARG001 - the functions that decide share one signature (Step.decide)
"""What can be done with a payment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esx.demo.nouns import Fact, Outcome, Step, has

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

_REFUSALS = ("risk check failed", "daily limit exceeded", "issuer did not answer")
_USER, _SOURCE = "svc-payments", "payment-gateway"


def request(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Ask for the order's amount."""
    if facts:
        return None
    data = {
        "payment_id": step.stream_id,
        "order_id": step.about["order_id"],
        "account_id": step.about["account_id"],
        "amount": step.about["total"],
        "currency": "EUR",
        "attempt": int(step.stream_id.rpartition("-")[2]),
    }
    return Outcome("PaymentRequested", data, "svc-orders", "checkout")


def authorise(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Ask the gateway, which may refuse."""
    if has(facts, "PaymentAuthorised", "PaymentDeclined"):
        return None
    if rng.random() < 0.05:
        refused = {**_payment(facts), "reason": rng.choice(_REFUSALS)}
        return Outcome("PaymentDeclined", refused, _USER, _SOURCE)
    data = {**_payment(facts), "authorisation": f"{rng.randrange(36**6):06d}", "risk_score": rng.randint(1, 40)}
    return Outcome("PaymentAuthorised", data, _USER, _SOURCE)


def decline(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Decline it: the account could not be debited."""
    if has(facts, "PaymentDeclined", "PaymentCaptured"):
        return None
    return Outcome("PaymentDeclined", {**_payment(facts), "reason": step.about["reason"]}, _USER, _SOURCE)


def capture(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Capture it: the money is the shop's."""
    if has(facts, "PaymentDeclined", "PaymentCaptured"):
        return None
    return Outcome("PaymentCaptured", _payment(facts), _USER, _SOURCE)


def refund(step: Step, facts: Sequence[Fact], rng: Random) -> Outcome | None:
    """Send the money back."""
    if has(facts, "PaymentRefunded") or not has(facts, "PaymentCaptured"):
        return None
    return Outcome("PaymentRefunded", {**_payment(facts), "reason": step.about["reason"]}, _USER, _SOURCE)


def _payment(facts: Sequence[Fact]) -> dict[str, object]:
    asked = facts[0].data
    return {name: asked[name] for name in ("payment_id", "order_id", "account_id", "amount")}

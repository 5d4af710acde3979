"""What the shop's parts pass to one another: facts that happened, steps to be taken, and what a step came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from esx.demo.people import customer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random
    from uuid import UUID

    from esx.demo.people import Customer

SHOP_ACCOUNT = "accounts-1000"
"""The shop's own account. Every payment ends up there, so it is the one stream that all writers meet on."""
FIRST_CUSTOMER = 1001
FIRST_CART = 30001
_ORDERS_BEHIND_CARTS = 10000


class Fact(NamedTuple):
    """An event as the shop sees it."""

    stream_id: str
    event_type: str
    data: dict[str, Any]
    user: str
    correlation_id: str
    event_id: UUID


class Outcome(NamedTuple):
    """What was decided: the event to append, and who did it by which program."""

    event_type: str
    data: dict[str, Any]
    user: str
    source: str


class Step(NamedTuple):
    """Something to be done on a stream.

    `decide` is asked with the newest facts of the stream; it answers None where there is nothing (any more) to do.
    `wait` is how many seconds people or machines take until then.
    """

    stream_id: str
    decide: Callable[[Step, Sequence[Fact], Random], Outcome | None]
    about: Mapping[str, Any]
    wait: float = 0.0
    cause: Fact | None = None


def metadata(step: Step, outcome: Outcome, new_correlation: str) -> dict[str, str]:
    """Return the metadata of a step's event. The first event of a transaction has no causation id."""
    if step.cause is None:
        return {"correlation_id": new_correlation, "user": outcome.user, "source": outcome.source}
    return {
        "correlation_id": step.cause.correlation_id,
        "causation_id": str(step.cause.event_id),
        "user": outcome.user,
        "source": outcome.source,
    }


def made(step: Step, outcome: Outcome, event_id: UUID, new_correlation: str) -> Fact:
    """Return the fact that a step has become."""
    correlation = step.cause.correlation_id if step.cause else new_correlation
    return Fact(step.stream_id, outcome.event_type, outcome.data, outcome.user, correlation, event_id)


def number_of(stream_id: str) -> int:
    """Return the number in a stream id: 20931 in ``orders-20931`` and in ``payments-20931-1``."""
    return int(stream_id.split("-")[1])


def account_stream(number: int) -> str:
    """Return the stream of an account."""
    return f"accounts-{number}"


def cart_stream(number: int) -> str:
    """Return the stream of a cart."""
    return f"carts-{number}"


def order_of_cart(cart_id: str) -> str:
    """Return the order that a cart becomes. One follows from the other, so two writers cannot order a cart twice."""
    return f"orders-{number_of(cart_id) - _ORDERS_BEHIND_CARTS}"


def payment_of_order(order_id: str, attempt: int) -> str:
    """Return the stream of an order's first or second payment."""
    return f"payments-{number_of(order_id)}-{attempt}"


def holder(account_id: str) -> Customer:
    """Return whose account it is."""
    return customer(number_of(account_id))


def has(facts: Sequence[Fact], *event_types: str) -> bool:
    """Return whether one of these events is among the facts."""
    return any(fact.event_type in event_types for fact in facts)

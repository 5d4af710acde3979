"""The business: for each type of event when it may happen, what is in it, who does it, and what follows from it.

The history and the live traffic both play by these rules. Each event has at most one consequence, so a business
transaction is a chain through several streams.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from random import Random
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from esx.demo.samples import COUPONS, HUBS, PRODUCTS, SHOP_NUMBER, WORDS, cents, customer
from esx.model import category_of

Data = dict[str, Any]
CATEGORIES = ("accounts", "orders", "payments", "carts")
SHOP_ACCOUNT = f"accounts-{SHOP_NUMBER}"
"""The shop's own account. Every payment ends up there, so it is the one stream that all writers meet on."""
FIRST_CUSTOMER, FIRST_CART = SHOP_NUMBER + 1, 30001
WINDOW = 100  # how many facts of a stream, the newest, are enough to decide
_ORDERS_BEHIND_CARTS, _VAT, _ZERO, _SHORT = 10000, 19, cents(0), "insufficient funds"
_VAT_WITHIN = Decimal(_VAT) / (100 + _VAT)
# What every event on a payment's way carries, so that the next one need not look it up.
_PAYMENT = "payment_id order_id account_id amount"
_WITH_REASON = f"{_PAYMENT} reason"
is_ours = re.compile(r"(accounts|carts|orders)-[1-9][0-9]{3,9}|payments-[1-9][0-9]{3,9}-[12]").fullmatch
"""Whether a stream's name is one that the shop would give."""
_Facts = Sequence["Fact"]


class Fact(NamedTuple):
    """An event as the shop sees it."""

    stream_id: str
    event_type: str
    data: Data
    metadata: dict[str, str]
    event_id: UUID


class Step(NamedTuple):
    """An event that is to happen `wait` seconds after its cause; `about` is what the cause says, or the plan."""

    stream_id: str
    event_type: str
    about: Mapping[str, Any] = {}
    cause: Fact | None = None
    wait: float = 0.0


class Case:
    """What an event is made from: the newest facts of its stream, what it is about, chance, the customer's account."""

    def __init__(self, stream_id: str, facts: _Facts, about: Mapping[str, Any], rng: Random, account: _Facts) -> None:
        self.stream_id, self.facts, self.about, self.rng, self.account = stream_id, facts, about, rng, account

    @cached_property
    def state(self) -> Data:
        state: Data = {}
        for fact in self.facts:
            state.update(fact.data)
        return state

    @property
    def customer(self) -> Data:
        # An earlier esx may have opened the account, for another person.
        opened = self.account[0].data if self.account else {}
        return {**customer(number_of(account_of(self.stream_id, self.facts, self.about))), **opened}

    @property
    def way(self) -> list[str]:
        """Where the parcel is still scanned before it arrives."""
        seen = [fact.data["hub"] for fact in self.facts if fact.event_type == "ParcelScanned"]
        way = ("Hamburg", HUBS.get(self.state["shipping_address"]["country"]))
        return [hub for hub in way[len(seen) :] if hub and hub not in seen]

    def one(self, kind: str) -> str:
        return self.rng.choice(WORDS[kind])

    def same(self, names: str, **more: Any) -> Data:
        """Return these fields of what it is about, or else of its stream, and more; ``name=kind`` is one of a kind."""
        known = {**self.state, **self.about}
        fields = [name.partition("=") for name in names.split()]
        return {name: self.one(kind) if kind else known[name] for name, _, kind in fields} | more

    def opened(self) -> Data:
        money = {"balance": cents(500000), "method": "cash"} if self.stream_id == SHOP_ACCOUNT else {"balance": _ZERO}
        return {**self.customer, "currency": "EUR", **money}

    def contact(self) -> Data:
        changed = (
            {"phone": f"+44 1632 960{self.rng.randrange(1000):03d}"},  # a range kept free for made-up numbers
            {"newsletter": self.rng.random() < 0.3},
            {"address": {**self.customer["address"], "note": self.one("note")}},
        )
        return {"changed": self.rng.choice(changed)}

    def booked(self, change: Decimal, **data: Any) -> Data:
        """Return what every change of a balance says: the new one."""
        return {**data, "balance": self.state["balance"] + change}

    def deposit(self) -> Data:
        """Bring money in: the shop's takings, a customer's savings, or what was missing for an order."""
        data: Data = {"method": self.one("method"), "reference": f"{self.rng.randrange(16**8):08X}"}
        amount = cents(self.rng.choice((5000, 5000, 7550, 10000, 12500, 15000, 20000, 30000)))
        if self.stream_id == SHOP_ACCOUNT:
            data = {"method": "cash", "reference": f"till {self.rng.randint(1, 3)}"}
        if "order_id" in self.about:
            data["for_order"] = self.same("order_id account_id", total=self.about["amount"])
            amount = self.about["amount"] + cents(self.rng.randint(0, 6) * 500)
        return self.booked(amount, amount=amount, **data)

    def withdrawal(self) -> Data:
        amount = cents(self.rng.randint(4, 40) * 250)
        if amount > self.state["balance"]:
            return self.booked(_ZERO, amount=amount, reason=_SHORT)
        return self.booked(-amount, amount=amount, to=f"account ending in {self.rng.randrange(10000):04d}")

    def debit(self) -> Data:
        payment = self.same(_PAYMENT)
        if payment["amount"] > self.state["balance"]:
            return self.booked(_ZERO, **payment, reason=_SHORT)
        return self.booked(-payment["amount"], **payment)

    def received(self) -> Data:
        fee = round(self.about["amount"] * 14 / 1000, 2) + cents(25)
        net = self.about["amount"] - fee
        return self.booked(net, **self.same(_PAYMENT, fee=fee, net=net))

    def settlement(self) -> Data | None:
        """Report the payments since the last report: the largest events of the store."""
        lines: list[Data] = []
        for fact in self.facts:
            if fact.event_type == "SettlementReported":
                lines.clear()
            elif fact.event_type == "PaymentReceived":
                lines.append({name: fact.data[name] for name in ("payment_id", "order_id", "amount", "fee", "net")})
        totals = {name: sum((line[name] for line in lines), _ZERO) for name in ("amount", "fee", "net")}
        return self.booked(_ZERO, payments=len(lines), totals=totals, lines=lines) if len(lines) >= 5 else None

    @cached_property
    def lines(self) -> list[Data]:
        """What is in the cart: sku, name, unit_price and quantity of each."""
        lines: dict[str, Data] = {}
        for _, event_type, data, *_ in self.facts:
            if event_type == "ItemAdded":
                before = lines.get(data["sku"], {"quantity": 0})["quantity"]
                lines[data["sku"]] = {**data, "quantity": before + data["quantity"]}
            elif event_type == "ItemRemoved":
                del lines[data["sku"]]
            elif event_type == "QuantityChanged":
                lines[data["sku"]]["quantity"] = data["to"]
        return list(lines.values())

    @property
    def value(self) -> Decimal:
        return sum((line["unit_price"] * line["quantity"] for line in self.lines), _ZERO)

    def item(self) -> Data:
        # The cheaper of two: a teapot is a rarer thing to buy than tea.
        product = min(self.rng.choices(PRODUCTS, k=2), key=lambda product: product["unit_price"])
        return {**product, "quantity": self.rng.choice((1, 1, 1, 1, 2, 2, 3))}

    def removal(self) -> Data:
        line = self.rng.choice(self.lines)
        return {"sku": line["sku"], "quantity": line["quantity"]}

    def quantity(self) -> Data:
        line = self.rng.choice(self.lines)
        before = line["quantity"]
        return {"sku": line["sku"], "from": before, "to": before + self.rng.choice((1, -1) if before > 1 else (1,))}

    def checkout(self) -> Data:
        # An order's number follows from its cart's, so two writers cannot order a cart twice.
        order_id = f"orders-{number_of(self.stream_id) - _ORDERS_BEHIND_CARTS}"
        items = [{**line, "line_total": line["unit_price"] * line["quantity"]} for line in self.lines]
        value, off = self.value, round(self.value * self.state.get("percent", 0) / 100, 2)
        money = {"subtotal": value, "discount": off, "total": value - off}
        return self.same("account_id currency", order_id=order_id, items=items, **money)

    def order(self) -> Data:
        who, goods = self.customer, self.about["total"]
        shipping = _ZERO if goods >= cents(6000) else cents(490)
        return self.same(
            "account_id items discount currency",
            cart_id=f"carts-{number_of(self.stream_id) + _ORDERS_BEHIND_CARTS}",
            customer={"name": who["owner"], "email": who["email"]}, shipping_address=who["address"], shipping=shipping,
            total=goods + shipping, tax=round((goods + shipping) * _VAT_WITHIN, 2),
        )  # fmt: skip

    def invoice(self) -> Data:
        order, shop = self.state, customer(SHOP_NUMBER)
        positions = [
            {"position": place, **item, "vat": {"rate": _VAT, "amount": round(item["line_total"] * _VAT_WITHIN, 2)}}
            for place, item in enumerate(order["items"], 1)
        ]
        return self.same(
            "shipping discount total tax currency",
            invoice_id=f"R-{number_of(self.stream_id)}", positions=positions, legal=WORDS["legal"],
            seller={"name": shop["owner"], "address": shop["address"], "contact": shop["email"]},
            buyer={**order["customer"], "address": order["shipping_address"]},
        )  # fmt: skip

    def packed(self) -> Data:
        things = sum(item["quantity"] for item in self.state["items"])
        return {"parcels": 1 + things // 8, "weight_kg": cents(self.rng.randint(40, 90) * things)}

    def request(self) -> Data:
        order, number = self.about.get("for_order", self.about), number_of(self.stream_id)
        payment = {"payment_id": self.stream_id, "order_id": f"orders-{number}", "account_id": order["account_id"]}
        return {**payment, "amount": order["total"], "currency": "EUR", "attempt": int(self.stream_id[-1])}

    def authorisation(self) -> Data:
        """Ask the gateway, which may refuse."""
        if self.rng.random() < 0.07:
            return self.same(f"{_PAYMENT} reason=refusal")
        code, risk = f"{self.rng.randrange(10**6):06d}", self.rng.randint(1, 40)
        return self.same(_PAYMENT, authorisation=code, risk_score=risk)


class Rule(NamedTuple):
    """How an event happens: `wait` seconds after its cause, in a stream whose last event is of a type in `after`.

    `by` is a program and its users; without users it is the customer, by default on web or app. `data` makes the
    contents, or names fields to copy; a reason in them makes it the `refusal`. `then` may follow, in these shares.
    """

    after: str
    place: str
    wait: float
    by: str | Callable[[Case], str]
    data: str | Callable[[Case], Data | None]
    then: Mapping[str, int] = {}
    when: Callable[[Case], object] = bool
    refusal: str = ""


def number_of(stream_id: str) -> int:
    """Return the number in a stream id: 20931 in ``orders-20931`` and in ``payments-20931-1``."""
    return int(stream_id.split("-")[1])


def account_of(stream_id: str, facts: Sequence[Fact], about: Mapping[str, Any]) -> str:
    """Return the account of the customer that a stream is about, or an empty text."""
    known = facts[0].data if facts else about
    return stream_id if stream_id.startswith("accounts-") else known.get("account_id", "")


def react(facts: Sequence[Fact], rng: Random) -> Step | None:
    """Return what follows from the last of a stream's facts, or None where nothing does."""
    cause = facts[-1]
    case = Case(cause.stream_id, facts, cause.data, rng, ())
    then = RULES[cause.event_type].then if cause.event_type in RULES else {}
    possible = [name for name in then if not name or RULES[name].when(case)]
    event_type = rng.choices(possible, [then[name] for name in possible])[0] if possible else ""
    if not event_type:
        return None
    rule = RULES[event_type]
    places = {"shop": SHOP_ACCOUNT, category_of(cause.stream_id): cause.stream_id}
    if rule.place == "new payment":
        again = cause.data.get("for_order")
        order_id = again["order_id"] if again else cause.stream_id
        places["new payment"] = f"payments-{number_of(order_id)}-{2 if again else 1}"
    stream_id = places.get(rule.place) or case.state.get(f"{rule.place[:-1]}_id")
    # Never at once, now and then late.
    wait = rule.wait * (0.3 + rng.expovariate(1 / 0.7))
    return Step(stream_id, event_type, cause.data, cause, wait) if stream_id else None


def decide(step: Step, facts: _Facts, event_id: UUID, rng: Random, account: _Facts = ()) -> Fact | None:
    """Return the event that a step comes to, if any; `account` has the first event of the customer's account."""
    rule, cause, case = RULES[step.event_type], step.cause, Case(step.stream_id, facts, step.about, rng, account)
    last = facts[-1].event_type if facts else _NOTHING
    if (last not in rule.after.split() and not (facts and rule.after == _ANY)) or not rule.when(case):
        return None
    if cause is None:
        metadata = {"correlation_id": str(uuid5(event_id, "correlation"))}
    else:
        metadata = {"correlation_id": cause.metadata["correlation_id"], "causation_id": str(cause.event_id)}
        if metadata["causation_id"] in [fact.metadata.get("causation_id") for fact in facts]:
            return None
    data = case.same(rule.data) if isinstance(rule.data, str) else rule.data(case)
    if data is None:
        return None
    by = rule.by if isinstance(rule.by, str) else rule.by(case)
    source, *users = by.split() or [data.get("channel") or case.state.get("channel") or case.one("channel")]
    if not users and step.stream_id == SHOP_ACCOUNT:
        source, *users = _OFFICE.split()
    metadata |= {"user": rng.choice(users or [case.customer["email"].partition("@")[0]]), "source": source}
    event_type = rule.refusal if rule.refusal and "reason" in data else step.event_type
    return Fact(step.stream_id, event_type, data, metadata, event_id)


_MINUTE, _HOUR = 60, 3600
_NOTHING, _ANY = "nothing", "anything"
_OPEN = "CartCreated ItemAdded ItemRemoved QuantityChanged CouponApplied"
_BILLING, _GATEWAY, _ORDERS = "billing svc-billing", "payment-gateway svc-payments", "orders svc-orders"
_OFFICE = "backoffice ruth.adeyemi marc.dubois"
_WAREHOUSE, _CARRIER = "warehouse lena.fischer tomasz.wojcik aylin.demir", "edi svc-carrier"
_SHOPPING = {"ItemAdded": 50, "ItemRemoved": 10, "QuantityChanged": 13, "CouponApplied": 7, "CartCheckedOut": 14,
             "CartAbandoned": 6}  # fmt: skip
# What has happened before, in which stream it happens, after how long, who does it, its data, and what follows.
RULES = {
    "AccountOpened": Rule(_NOTHING, "accounts", 0, "", Case.opened, {"EmailVerified": 1}),
    "EmailVerified": Rule(_ANY, "accounts", 5 * _MINUTE, "mail-link", "email", {"MoneyDeposited": 1},
        lambda c: c.stream_id != SHOP_ACCOUNT),
    "ContactDetailsChanged": Rule(_ANY, "accounts", 0, "", Case.contact),
    "MoneyDeposited": Rule(_ANY, "accounts", 30 * _MINUTE, "", Case.deposit, {"PaymentRequested": 1},
        lambda c: c.about.get("reason", _SHORT) == _SHORT and not c.about.get("payment_id", "").endswith("-2")),
    "MoneyWithdrawn": Rule(_ANY, "accounts", 0, "", Case.withdrawal, refusal="WithdrawalRejected"),
    "AccountDebited": Rule(_ANY, "accounts", 2, _BILLING, Case.debit, {"PaymentReceived": 1}, refusal="DebitRejected"),
    "DebitRejected": Rule(_ANY, "accounts", 0, _BILLING, Case.debit, {"PaymentDeclined": 1}),
    "AccountCredited": Rule(_ANY, "accounts", 3, _BILLING,
        lambda c: c.booked(c.about["amount"], **c.same(_WITH_REASON)), {"RefundPaidOut": 1}),
    "PaymentReceived": Rule(_ANY, "shop", 3, _BILLING, Case.received, {"PaymentCaptured": 1}),
    "RefundPaidOut": Rule(_ANY, "shop", 3, _BILLING, lambda c: c.booked(-c.about["amount"], **c.same(_PAYMENT)),
        {"OrderRefunded": 1}),
    "SettlementReported": Rule(_ANY, "shop", 0, "billing scheduler", Case.settlement),

    "CartCreated": Rule(_NOTHING, "carts", 0, "",
        lambda c: c.same("account_id channel=channel", currency="EUR"), _SHOPPING),
    "ItemAdded": Rule(_OPEN, "carts", 2 * _MINUTE, "", Case.item, _SHOPPING),
    "ItemRemoved": Rule(_OPEN, "carts", _MINUTE, "", Case.removal, _SHOPPING, lambda c: c.lines),
    "QuantityChanged": Rule(_OPEN, "carts", _MINUTE, "", Case.quantity, _SHOPPING, lambda c: c.lines),
    "CouponApplied": Rule(_OPEN, "carts", _MINUTE, "", lambda c: {**c.rng.choice(COUPONS)}, _SHOPPING,
        lambda c: c.lines and "CouponApplied" not in [fact.event_type for fact in c.facts]),
    "CartCheckedOut": Rule(_OPEN, "carts", 3 * _MINUTE, "", Case.checkout, {"OrderPlaced": 1}, lambda c: c.lines),
    "CartAbandoned": Rule(_OPEN, "carts", 3 * _HOUR, "cart-sweeper scheduler",
        lambda c: c.same("reason=left", value=c.value)),

    "OrderPlaced": Rule(_NOTHING, "orders", 1, "checkout", Case.order, {"PaymentRequested": 1}),
    "OrderPaid": Rule("OrderPlaced", "orders", 1, _ORDERS, "payment_id amount",
        {"InvoiceIssued": 97, "OrderCancelled": 3}),
    "OrderCancelled": Rule("OrderPlaced OrderPaid", "orders", 2 * _HOUR,
        lambda c: _ORDERS if "reason" in c.about else _OFFICE,
        lambda c: c.same("reason" if "reason" in c.about else "reason=cancelled"), {"PaymentRefunded": 1}),
    "InvoiceIssued": Rule("OrderPaid", "orders", 5, _BILLING, Case.invoice, {"OrderPacked": 1}),
    "OrderPacked": Rule("InvoiceIssued", "orders", 4 * _HOUR, _WAREHOUSE, Case.packed, {"OrderShipped": 1}),
    "OrderShipped": Rule("OrderPacked", "orders", 3 * _HOUR, _WAREHOUSE,
        lambda c: c.same("carrier=carrier", tracking=f"{c.rng.randrange(10**12):012d}"), {"ParcelScanned": 1}),
    "ParcelScanned": Rule("OrderShipped ParcelScanned", "orders", 10 * _HOUR, _CARRIER,
        lambda c: c.same("tracking", hub=c.way[0]), {"ParcelScanned": 1, "OrderDelivered": 1}, lambda c: c.way),
    "OrderDelivered": Rule("ParcelScanned", "orders", 12 * _HOUR, _CARRIER, "tracking left_with=left_with",
        {"ReturnRequested": 7, "OrderReviewed": 23, "": 70}, lambda c: not c.way),
    "OrderReviewed": Rule("OrderDelivered", "orders", 20 * _HOUR, "",
        lambda c: {"stars": c.rng.choice((5, 5, 4, 4, 3)), "text": c.one("review")}),
    "ReturnRequested": Rule("OrderDelivered", "orders", 30 * _HOUR, "", "reason=return", {"PaymentRefunded": 1}),
    "OrderRefunded": Rule("ReturnRequested OrderCancelled", "orders", 2, _ORDERS, "payment_id amount"),

    "PaymentRequested": Rule(_NOTHING, "new payment", 1, "checkout svc-orders", Case.request, {"PaymentAuthorised": 1},
        lambda c: "for_order" in c.about or "total" in c.about),
    "PaymentAuthorised": Rule("PaymentRequested", "payments", 2, _GATEWAY, Case.authorisation, {"AccountDebited": 1},
        refusal="PaymentDeclined"),
    "PaymentDeclined": Rule("PaymentAuthorised", "payments", 1, _GATEWAY, _WITH_REASON,
        {"MoneyDeposited": 7, "OrderCancelled": 3}),
    "PaymentCaptured": Rule("PaymentAuthorised", "payments", 2, _GATEWAY, _PAYMENT, {"OrderPaid": 1}),
    "PaymentRefunded": Rule("PaymentCaptured", "payments", 2 * _HOUR, _GATEWAY, _WITH_REASON, {"AccountCredited": 1}),
}  # fmt: skip

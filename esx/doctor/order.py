"""Checks whether a feed can have an order, which relies on the locks of the table's writers."""

from collections.abc import Iterator
from dataclasses import dataclass

from esx.doctor.finding import About, Finding, shown
from esx.doctor.target import Examined
from esx.doctor.topic import Topic
from esx.errors import EsxError
from esx.layouts.detection import detect_layout, order_unknown
from esx.postgres.session import Session


@dataclass(frozen=True, slots=True)
class Order:
    """Why no position is safe, None if there are safe positions; `table` is what is examined."""

    table: str
    unknown: str | None


async def read_order(connection: Session, target: Examined) -> Order:
    """Ask as a feed does before it begins."""
    try:
        layout = await detect_layout(connection, target.quoted if target.named else None)
    except EsxError as error:  # other checks say more about it
        return Order(target.table, str(error))
    return Order(target.table, await order_unknown(connection, layout))


def order(facts: Order) -> Iterator[Finding]:
    """Check that the locks of the writers show which events may still appear."""
    found = About("order")
    if facts.unknown is None:
        yield found.ok(f"who may still fill a gap shows in the locks of {shown(facts.table)}")
    else:
        # No statement in this database would help.
        yield found.error(f"no feed here: {facts.unknown}")


TOPIC = Topic("order", read_order, (order,))

"""Whether there is an order to follow at all: what decides is not always the table's own locks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esx.store.doctor.finding import About, shown
from esx.store.errors import EsxError
from esx.store.relation import detect_layout, order_unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esx.store.connection import Session
    from esx.store.doctor.finding import Finding
    from esx.store.doctor.target import Target


@dataclass(frozen=True, slots=True)
class Order:
    """Why no position can be called safe, None if that can be told; `table` is what is examined."""

    table: str
    unknown: str | None


async def read_order(connection: Session, target: Target) -> Order:
    """Ask as a feed does before it begins."""
    try:
        layout = await detect_layout(connection, target.quoted if target.named else None)
    except EsxError as error:  # said by other checks in more words
        return Order(target.table, str(error))
    return Order(target.table, await order_unknown(connection, layout))


def order(facts: Order) -> Iterator[Finding]:
    """Check that what may still appear can be told from the locks of the writers."""
    found = About("order")
    if facts.unknown is None:
        yield found.ok(f"who may still fill a gap shows in the locks of {shown(facts.table)}")
    else:
        # What to do about it is elsewhere: a statement here would mend nothing.
        yield found.error(f"no feed here: {facts.unknown}")


CHECKS = (order,)

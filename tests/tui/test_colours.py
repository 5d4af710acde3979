"""What the colours of types say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from textual.color import Color

from esx.config import FAILURE_WORDS
from esx.tui.cells import says_failure, tell_failures_by, tint_colour, tint_of, tint_style

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def usual_words() -> Iterator[None]:
    tell_failures_by(FAILURE_WORDS)
    yield
    tell_failures_by(FAILURE_WORDS)


def hue(event_type: str, stream: str, *, dark: bool = True) -> float:
    return Color.parse(tint_colour(tint_of(event_type, stream), dark)).hsl.h * 360


@pytest.mark.parametrize("dark", [True, False])
def test_the_types_of_a_category_have_one_hue_and_none_of_them_is_red(dark: bool) -> None:
    hues = [hue(name, "orders-1", dark=dark) for name in ("OrderPlaced", "OrderPaid", "OrderShipped", "ParcelScanned")]
    assert max(hues) - min(hues) < 3
    for category in (f"category{number}" for number in range(200)):
        assert 25 < hue("T", f"{category}-1", dark=dark) < 335


def test_ids_that_name_no_category_leave_each_type_its_own_hue() -> None:
    for stream in ("00a694e8-f50d-50b9-89e9-82526c1cca60", "1234-5", "plain"):
        assert tint_of("OrderPlaced", stream) == tint_of("OrderPlaced", "")


def test_what_says_failure_is_red_and_bold_in_every_category() -> None:
    for name in ("PaymentFailed", "payment-declined", "OrderRejected", "LoginError"):
        assert says_failure(name)
        for dark in (True, False):
            assert hue(name, "payments-1", dark=dark) in (0.0, 360.0)
            assert tint_style(tint_of(name, "payments-1"), dark).bold
    assert not says_failure("PaymentCaptured")
    tell_failures_by(["Lost"])
    assert says_failure("ParcelLost")
    assert not says_failure("PaymentFailed")

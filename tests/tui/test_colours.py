"""What the colours of types say, and that texts can be read in every theme."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from esx.config import FAILURE_WORDS
from esx.tui.cells import says_failure, tell_failures_by, tint_colour, tint_of, tint_style
from esx.tui.contrast import LEAST, contrast, readable

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def usual_words() -> Iterator[None]:
    tell_failures_by(FAILURE_WORDS)
    yield
    tell_failures_by(FAILURE_WORDS)


DARK, LIGHT = "#242f38", "#bec6cc"
"""Backgrounds of themes."""


def hue(event_type: str, stream: str, ground: str = DARK) -> float:
    return Color.parse(tint_colour(tint_of(event_type, stream), ground)).hsl.h * 360


@pytest.mark.parametrize("ground", [DARK, LIGHT])
def test_the_types_of_a_category_have_one_hue_and_none_of_them_is_red(ground: str) -> None:
    hues = [hue(name, "orders-1", ground) for name in ("OrderPlaced", "OrderPaid", "OrderShipped", "ParcelScanned")]
    assert max(hues) - min(hues) < 3
    for category in (f"category{number}" for number in range(200)):
        assert 25 < hue("T", f"{category}-1", ground) < 335


def test_ids_that_name_no_category_leave_each_type_its_own_hue() -> None:
    for stream in ("00a694e8-f50d-50b9-89e9-82526c1cca60", "1234-5", "plain"):
        assert tint_of("OrderPlaced", stream) == tint_of("OrderPlaced", "")


def test_what_says_failure_is_red_and_bold_in_every_category() -> None:
    for name in ("PaymentFailed", "payment-declined", "OrderRejected", "LoginError"):
        assert says_failure(name)
        for ground in (DARK, LIGHT):
            assert hue(name, "payments-1", ground) in (0.0, 360.0)
            assert tint_style(tint_of(name, "payments-1"), ground).bold
    assert not says_failure("PaymentCaptured")
    tell_failures_by(["Lost"])
    assert says_failure("ParcelLost")
    assert not says_failure("PaymentFailed")


@pytest.mark.parametrize("theme", [name for name, theme in BUILTIN_THEMES.items() if not theme.ansi])
def test_texts_and_types_can_be_read_on_every_background_of_a_theme(theme: str) -> None:
    found = BUILTIN_THEMES[theme]
    variables = readable({**found.to_color_system().generate(), **found.variables}, dark=found.dark)
    grounds = [Color.parse(variables[name]) for name in ("background", "surface", "panel", "row-blurred")]
    names = (
        "text-primary",
        "text-success",
        "text-warning",
        "text-error",
        "text-accent",
        "footer-key-foreground",
        "quiet",
    )
    texts = {name: Color.parse(variables[name]) for name in names}
    for name in ("text-muted", "text-disabled"):
        texts[name] = grounds[0].get_contrast_text(float(variables[name].removeprefix("auto ").rstrip("%")) / 100)
    texts |= {
        f"{event_type} of {stream}": Color.parse(tint_colour(tint_of(event_type, stream), variables["ground"]))
        for stream in (f"c{letter}-1" for letter in "abcdefghijklmnopq")
        for event_type in ("OrderPlaced", "OrderPaid", "ParcelScanned", "PaymentFailed")
    }
    foreground = Color.parse(variables["foreground"])
    for name, text in texts.items():
        for ground in grounds:
            # Some themes have no text as strong as that.
            least = min(LEAST, contrast(foreground, ground)) if name == "quiet" else LEAST
            assert contrast(ground.blend(text, text.a, 1), ground) >= least - 0.1, (name, text.hex, ground.hex)
    cursor = Color.parse(variables["block-cursor-background"])
    assert contrast(Color.parse(variables["block-cursor-foreground"]), cursor) >= LEAST


def test_the_terminals_own_colours_stay() -> None:
    variables = readable(BUILTIN_THEMES["ansi-dark"].to_color_system().generate(), dark=True)
    assert variables["quiet"] == variables["foreground"]

"""The colours of texts, such that they can be read on every background of their theme."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from textual.app import App
from textual.color import BLACK, WHITE, Color

LEAST = 4.5
"""The contrast of a text with its background: WCAG 2, level AA."""

_TEXTS = (
    *("text-primary", "text-secondary", "text-warning", "text-error", "text-success", "text-accent"),
    "footer-key-foreground",
)


def readable(variables: Mapping[str, str], *, dark: bool) -> dict[str, str]:
    """Return a theme's variables with colours of texts that can be read, and three of esx's own.

    ``row-blurred`` is the background of the row under the cursor where the focus is elsewhere, ``ground`` that on which
    it is hardest to read, and ``quiet`` the colour of what matters less.
    """
    found = {name: Color.parse(variables[name]) for name in ("background", "surface", "panel", "primary", "foreground")}
    if any(colour.ansi is not None for colour in found.values()):
        # The terminal chooses the colours.
        return {**variables, "row-blurred": variables["surface"], "ground": "#1e1e1e" if dark else "#d8d8d8"} | {
            "quiet": variables["foreground"]
        }
    primary, foreground = found.pop("primary"), found.pop("foreground")
    surface = found["surface"]
    found["row-blurred"] = surface.blend(primary, 0.25 if dark else 0.12, 1)
    ground = max(found.values(), key=luminance) if dark else min(found.values(), key=luminance)
    ink = best_on(ground)
    changed = {
        "row-blurred": found["row-blurred"].hex,
        "ground": ground.hex,
        "quiet": foreground.with_alpha(_palest(surface, foreground, ground, 0.6)).hex,
        "text-muted": f"auto {_palest(surface, ink, ground, 0.6):.0%}",
        "text-disabled": f"auto {_palest(surface, ink, ground, 0.38):.0%}",
        "button-color-foreground": "auto 100%",
        "block-cursor-foreground": best_on(Color.parse(variables["block-cursor-background"])).hex,
        "block-cursor-blurred-background": found["row-blurred"].hex,
        "block-cursor-blurred-foreground": foreground.hex,
    }
    for name in _TEXTS:
        colour = Color.parse(variables[name])
        if colour.ansi is None:
            changed[name] = stronger(colour, ground).hex
    return {**variables, **changed}


class ReadableApp(App[None]):
    """An app in whose themes every text can be read."""

    def get_css_variables(self) -> dict[str, str]:
        """Return the colours of the theme."""
        self.theme_variables = readable(super().get_css_variables(), dark=self.current_theme.dark)
        return self.theme_variables


def luminance(colour: Color) -> float:
    """Return the relative luminance of a colour, 0 to 1."""
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Color, other: Color) -> float:
    """Return the contrast of two colours, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def best_on(ground: Color) -> Color:
    """Return black or white, whichever is read more easily."""
    return max((WHITE, BLACK), key=lambda ink: contrast(ink, ground))


def stronger(colour: Color, ground: Color) -> Color:
    """Return a colour with as much black or white in it as makes it readable."""
    ink = best_on(ground)
    shares = (share / 50 for share in range(51))
    return next(mixed for share in shares if contrast(mixed := colour.blend(ink, share), ground) >= LEAST or share == 1)


def _palest(surface: Color, ink: Color, ground: Color, least: float) -> float:
    """Return how much of `ink` a text on a surface needs to be readable on `ground` too."""
    shares = [share / 100 for share in range(round(least * 100), 101)]
    return next((share for share in shares if contrast(surface.blend(ink, share), ground) >= LEAST), 1.0)


@lru_cache(maxsize=1024)
def of_hue(hue: float, saturation: float, shade: float, ground: str) -> str:
    """Return a readable colour of a hue, 0 to 1, as ``#RRGGBB``; `shade`, -0.05 to 0.05, tells colours of it apart."""
    behind = Color.parse(ground)
    light = best_on(behind) == WHITE
    lightness, step = (0.70, 0.01) if light else (0.33, -0.01)
    # All shades of a hue can be read.
    palest = -0.05 if light else 0.05
    while 0.1 < lightness < 0.9:
        if contrast(Color.from_hsl(hue, saturation, lightness + palest), behind) >= LEAST:
            break
        lightness += step
    return Color.from_hsl(hue, saturation, lightness + shade).hex

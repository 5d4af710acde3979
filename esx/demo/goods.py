"""What the shop sells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from esx.demo.money import cents

if TYPE_CHECKING:
    from decimal import Decimal


class Product(NamedTuple):
    """One thing on the shelf."""

    sku: str
    name: str
    price: Decimal


PRODUCTS = tuple(
    Product(sku, name, cents(price))
    for sku, name, price in (
        ("TEA-ASM-100", "Assam leaf tea, 100 g", 690),
        ("TEA-SEN-100", "煎茶 Sencha, 100 g", 1250),
        ("TEA-MAT-030", "Matcha, tin of 30 g", 2400),
        ("TEA-ROO-250", "Rooibos, 250 g", 850),
        ("TEA-EGB-050", "Earl Grey, 50 bags", 520),
        ("COF-ETH-250", "Yirgacheffe beans, 250 g", 1190),
        ("COF-COL-500", "Café de Colombia, 500 g", 1780),
        ("COF-DEC-250", "Decaf espresso, 250 g", 1090),
        ("COF-FIL-100", "Paper filters, 100", 450),
        ("POT-CAS-080", "Cast-iron teapot, 0.8 l", 5900),
        ("POT-GLA-120", "Glass teapot, 1.2 l", 3450),
        ("POT-PRE-100", "French press, 1 l", 2990),
        ("KET-GOO-090", "Gooseneck kettle, 0.9 l", 7450),
        ("KET-ELE-170", "Electric kettle, 1.7 l", 4900),
        ("CUP-STO-020", "Stoneware cup, 0.2 l", 1150),
        ("CUP-ESP-004", "Espresso cups, set of 4", 2280),
        ("CUP-TRA-035", "Travel mug, 0.35 l", 1990),
        ("MIL-HAN-001", "Hand grinder", 6400),
        ("SCA-KIT-002", "Kitchen scale, 2 kg", 2650),
        ("SWE-HON-250", "Heather honey, 250 g", 780),
        ("SWE-SHO-200", "Shortbread, 200 g", 395),
        ("SWE-MAD-012", "Madeleines, box of 12", 640),
        ("GIF-CAR-025", "Gift card", 2500),
        ("GIF-BOX-003", "Tasting box, three teas", 1950),
    )
)

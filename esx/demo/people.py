# ruff: noqa: S311 - made-up people need no cryptography
"""Who shops and who works there. A customer follows from the account's number alone, so nobody has to look one up."""

from __future__ import annotations

import random
import unicodedata
from functools import lru_cache
from typing import Any, NamedTuple

SHOP_NAME = "Kettle & Kiosk"
PACKERS = ("lena.fischer", "tomasz.wojcik", "aylin.demir")
OFFICE = ("ruth.adeyemi", "marc.dubois")

# Given names, family names, country, cities with a street each; names of one row go together.
_REGIONS: tuple[tuple[tuple[str, ...], tuple[str, ...], str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        ("Amelia", "Oliver", "Grace", "Harry", "Imogen", "Callum"),
        ("Walker", "Hughes", "O'Connor", "Patel", "Fraser", "Bennett"),
        "GB",
        (("Leeds", "LS1 4AP", "Albion Street"), ("Bristol", "BS1 5TR", "Harbour Road")),
    ),
    (
        ("José", "Lucía", "Martín", "Inés", "Álvaro", "Begoña"),
        ("García", "Núñez", "Ibáñez", "Romero", "Peña", "Castaño"),
        "ES",
        (("València", "46001", "Carrer de Colom"), ("Cádiz", "11001", "Calle Ancha")),
    ),
    (
        ("Jürgen", "Anneliese", "Björn", "Käthe", "Moritz", "Hannah"),
        ("Müller", "Weiß", "Schäfer", "Krüger", "Hoffmann", "Lindner"),
        "DE",
        (("Köln", "50667", "Hohe Straße"), ("Leipzig", "04109", "Grimmaische Straße")),
    ),
    (
        ("Zoë", "Anaïs", "Loïc", "Chloé", "Benoît", "Margaux"),
        ("Lefèvre", "Girard", "Besançon", "Moreau", "Delacroix", "Noël"),
        "FR",
        (("Nîmes", "30000", "Rue de l'Aspic"), ("Lille", "59000", "Rue de Béthune")),
    ),
    (
        ("Søren", "Åsa", "Freja", "Øyvind", "Linnéa", "Mikkel"),
        ("Sørensen", "Lindqvist", "Bjørnstad", "Åkesson", "Holm", "Dahl"),
        "DK",
        (("Århus", "8000", "Åboulevarden"), ("Odense", "5000", "Vestergade")),
    ),
    (
        ("Łukasz", "Małgorzata", "Zofia", "Paweł", "Agnieszka", "Michał"),
        ("Nowak", "Wiśniewski", "Dąbrowska", "Zieliński", "Wójcik", "Kamińska"),
        "PL",
        (("Łódź", "90-001", "ulica Piotrkowska"), ("Gdańsk", "80-831", "ulica Długa")),
    ),
)
# Names whose login does not follow from their letters.
_OTHERS = (
    ("李雷", "li.lei", "CN", "上海", "200001", "南京东路"),
    ("韩梅梅", "han.meimei", "CN", "杭州", "310000", "延安路"),
    ("王芳", "wang.fang", "CN", "成都", "610000", "春熙路"),
    ("佐藤 花子", "hanako.sato", "JP", "京都市", "600-8216", "烏丸通"),
    ("Ελένη Παππά", "eleni.pappa", "GR", "Θεσσαλονίκη", "546 24", "Τσιμισκή"),
    ("Олена Коваль", "olena.koval", "UA", "Львів", "79000", "вулиця Городоцька"),
)
_PLAIN = str.maketrans({"ø": "o", "ł": "l", "ß": "ss", "'": ""})


class Customer(NamedTuple):
    """Somebody with an account."""

    name: str
    login: str
    address: dict[str, Any]

    @property
    def email(self) -> str:
        """An address that can belong to nobody."""
        return f"{self.login}@example.com"


@lru_cache(maxsize=4096)
def customer(number: int) -> Customer:
    """Return the customer whose account has that number: always the same one."""
    rng = random.Random(number)
    house = rng.randint(1, 140)
    if rng.random() < 0.12:
        name, login, country, city, postcode, street = rng.choice(_OTHERS)
        login = f"{login}{number % 100:02d}"
    else:
        given, family, country, cities = rng.choice(_REGIONS)
        first, last = rng.choice(given), rng.choice(family)
        name = f"{first} {last}"
        login = f"{_ascii(first)}.{_ascii(last)}"
        city, postcode, street = rng.choice(cities)
    address = {"street": f"{street} {house}", "postcode": postcode, "city": city, "country": country}
    return Customer(name, login, address)


def _ascii(name: str) -> str:
    return unicodedata.normalize("NFKD", name.lower().translate(_PLAIN)).encode("ascii", "ignore").decode()

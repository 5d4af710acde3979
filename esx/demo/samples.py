"""What the shop is made up of: its goods, the people who buy and work there, and what they say."""

import json
import random
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from itertools import product
from typing import Any

from esx.model import JsonText

SHOP_NUMBER = 1000

_WORDS = """
method|bank transfer|card|card|direct debit
coupon|WELCOME5|TEATIME10|¡HOLA!15
left|inactive|inactive|session ended|customer emptied it
note|Bitte bei Nachbarn abgeben|ring twice|请放门口
carrier|Northway Parcel|Velo Express|Paketpost
cancelled|changed their mind|changed their mind|ordered twice|wrong address
channel|web|web|web|app|app
hub|GB Coventry|ES Zaragoza|FR Paris|DK Fredericia|PL Poznań|CN 上海|JP 大阪|GR Αθήνα|UA Львів
left_with|customer|customer|neighbour|locker
refusal|risk check failed|daily limit exceeded|issuer did not answer
return|arrived damaged|does not fit|ordered by mistake|zerbrochen angekommen
review|Works as described.|¡Excelente! Llegó en dos días.|Très bon, merci !|很好喝，下次还买|Schöner Becher, leider ein Kratzer.|Better than the last one 🙂
legal|Goods remain our property until paid in full.|You may return unused goods within 30 days of delivery; we pay the postage for damaged ones.|Prices include value added tax at the rate shown. This invoice was made by a machine and needs no signature.
""".strip().splitlines()  # noqa: E501 - a table
WORDS = {name: words.split("|") for name, words in (line.split("|", 1) for line in _WORDS)}
"""What there is to choose from, of each kind; what is chosen more often is there twice."""
COUPONS = tuple({"code": code, "percent": int("".join(filter(str.isdigit, code)))} for code in WORDS["coupon"])
HUBS = dict(hub.split() for hub in WORDS["hub"])

# Article, price in cents, name.
_SHELF = """
TEA-ASM-100 690 Assam leaf tea, 100 g | TEA-SEN-100 1250 煎茶 Sencha, 100 g | TEA-MAT-030 2400 Matcha, tin of 30 g
TEA-ROO-250 850 Rooibos, 250 g | TEA-EGB-050 520 Earl Grey, 50 bags | COF-ETH-250 1190 Yirgacheffe beans, 250 g
COF-COL-500 1780 Café de Colombia, 500 g | COF-DEC-250 1090 Decaf espresso, 250 g | COF-FIL-100 450 Paper filters, 100
POT-CAS-080 5900 Cast-iron teapot, 0.8 l | POT-GLA-120 3450 Glass teapot, 1.2 l | POT-PRE-100 2990 French press, 1 l
KET-GOO-090 7450 Gooseneck kettle, 0.9 l | KET-ELE-170 4900 Electric kettle, 1.7 l | MIL-HAN-001 6400 Hand grinder
CUP-ESP-004 2280 Espresso cups, set of 4 | CUP-TRA-035 1990 Travel mug, 0.35 l | CUP-STO-020 1150 Stoneware cup, 0.2 l
SCA-KIT-002 2650 Kitchen scale, 2 kg | SWE-HON-250 780 Heather honey, 250 g | SWE-SHO-200 395 Shortbread, 200 g
SWE-MAD-012 640 Madeleines, box of 12 | GIF-CAR-025 2500 Gift card | GIF-BOX-003 1950 Tasting box, three teas
"""
# Country, given names, family names, cities with a street each; names of one line go together.
_REGIONS = """
GB|Amelia Oliver Grace Harry Imogen Callum|Walker Hughes O'Connor Patel Fraser Bennett|Leeds,LS1 4AP,Albion Street|Bristol,BS1 5TR,Harbour Road
ES|José Lucía Martín Inés Álvaro Begoña|García Núñez Ibáñez Romero Peña Castaño|València,46001,Carrer de Colom|Cádiz,11001,Calle Ancha
DE|Jürgen Anneliese Björn Käthe Moritz Hannah|Müller Weiß Schäfer Krüger Hoffmann Lindner|Köln,50667,Hohe Straße|Leipzig,04109,Grimmaische Straße
FR|Zoë Anaïs Loïc Chloé Benoît Margaux|Lefèvre Girard Besançon Moreau Delacroix Noël|Nîmes,30000,Rue de l'Aspic|Lille,59000,Rue de Béthune
DK|Søren Åsa Freja Øyvind Linnéa Mikkel|Sørensen Lindqvist Bjørnstad Åkesson Holm Dahl|Århus,8000,Åboulevarden|Odense,5000,Vestergade
PL|Łukasz Małgorzata Zofia Paweł Agnieszka Michał|Nowak Wiśniewski Dąbrowska Zieliński Wójcik Kamińska|Łódź,90-001,ulica Piotrkowska|Gdańsk,80-831,ulica Długa
""".strip().splitlines()  # noqa: E501 - a table
# Names whose login does not follow from their letters.
_OTHERS = """
李雷|li.lei|CN|上海|200001|南京东路
韩梅梅|han.meimei|CN|杭州|310000|延安路
王芳|wang.fang|CN|成都|610000|春熙路
佐藤 花子|hanako.sato|JP|京都市|600-8216|烏丸通
Ελένη Παππά|eleni.pappa|GR|Θεσσαλονίκη|546 24|Τσιμισκή
Олена Коваль|olena.koval|UA|Львів|79000|вулиця Городоцька
""".strip().splitlines()
_SHOP = ("Kettle & Kiosk", "office", "DE", "Hamburg", "20457", "Speicherstraße")
_PLAIN = str.maketrans({"ø": "o", "ł": "l", "ß": "ss", "'": ""})


def cents(amount: int) -> Decimal:
    """Return so many cents as an amount."""
    return Decimal(amount).scaleb(-2)


# json writes no Decimal as a number. It goes as a string that no other is like, and loses its quotes.
_ENCODER = json.JSONEncoder(ensure_ascii=False, default="\0{:.2f}\0".format)


def encode(value: Any) -> JsonText:
    """Return a value as JSON text, with amounts as numbers of two decimal places: ``12.50``."""
    return JsonText(_ENCODER.encode(value).replace('"\\u0000', "").replace('\\u0000"', ""))


PRODUCTS: tuple[dict[str, Any], ...] = tuple(
    {"sku": sku, "name": name, "unit_price": cents(int(price))}
    for sku, price, name in (line.split(maxsplit=2) for line in _SHELF.strip().replace("\n", " | ").split(" | "))
)
# Each name of the regions once, with its region.
_NAMES = [(line, *names) for line in _REGIONS for names in product(*map(str.split, line.split("|")[1:3]))]
random.Random(SHOP_NUMBER).shuffle(_NAMES)


@lru_cache(maxsize=4096)
def customer(number: int) -> Mapping[str, Any]:
    """Return who opens the account with that number: owner, email, address. An open account says it itself."""
    rng = random.Random(number)
    if number == SHOP_NUMBER:
        name, login, country, city, postcode, street = _SHOP
    elif rng.random() < 0.12:
        name, login, country, city, postcode, street = rng.choice(_OTHERS).split("|")
        login += f"{number - SHOP_NUMBER:02d}"
    else:
        # No two people have one mailbox: the names come round after some 200 accounts, then with a number.
        turn, place = divmod(number - SHOP_NUMBER - 1, len(_NAMES))
        region, first, last = _NAMES[place]
        country, _, _, *cities = region.split("|")
        name, plain = f"{first} {last}", unicodedata.normalize("NFKD", f"{first}.{last}".lower().translate(_PLAIN))
        login = plain.encode("ascii", "ignore").decode() + (str(turn + 1) if turn else "")
        city, postcode, street = rng.choice(cities).split(",")
    address = {"street": f"{street} {rng.randint(1, 140)}", "postcode": postcode, "city": city, "country": country}
    return {"owner": name, "email": f"{login}@example.com", "address": address}

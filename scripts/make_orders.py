"""Write the orders of the demo: `python scripts/make_orders.py > examples/orders.jsonl`.

Always the same 240 orders, of varied shape. Only `Random.random()` is used: its sequence is promised to stay.
"""

import json
import random
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypeVar

T = TypeVar("T")

COUNT = 240
PRICES = {
    "almanac": "14.90",
    "barometer": "89.00",
    "candle": "2.40",
    "compass": "35.50",
    "hourglass": "19.99",
    "kite": "24.00",
    "lantern": "41.25",
    "map": "9.80",
    "pencil": "0.35",
    "raincoat": "74.95",
    "sundial": "58.10",
    "thermometer": "12.70",
    "umbrella": "29.90",
    "weather-vane": "96.40",
}
PRECIOUS = {"globe": "129.00", "sextant": "310.00", "telescope": "449.00"}
SOLD_OUT = {"orrery": "890.00", "storm-glass": "46.00"}
CUSTOMERS = """
Ana Božić; Jürgen Groß; Søren Østergård; Zoë O'Hara; İpek Öztürk; Łukasz Żak; 山田 花子; 김민준; 王小明;
Nguyễn Thị Hương; Ελένη Παπαδοπούλου; Дмитрий Соколов; ليلى حداد; דנה לוי; आरव शर्मा; Siân Prŷs-Jones;
Þóra Jónsdóttir; José Muñoz; Chloë D'Agostino; Bo Li;
Oluwaseun Adébáyọ̀; Māra Bērziņa; Ştefan Ţepeş; Anne-Marie St. John; X Æ; María de los Ángeles
""".replace("\n", " ").split(";")
COUNTRIES = ["DE", "FR", "IT", "GB", "PL", "VN", "JP", "KR", "GR", "IN", "IS", "BR", "US", "NG", "LV"]
NOTES = ["Leave it at the neighbour's", "Grüße aus Köln! 🌧️", "two\nlines", "two\u2028lines", "  ", "誕生日おめでとう"]


class Dice:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def chance(self, share: float) -> bool:
        return self._random.random() < share

    def number(self, least: int, most: int) -> int:
        return least + int(self._random.random() * (most - least + 1))

    def one(self, choices: Sequence[T]) -> T:
        return choices[self.number(0, len(choices) - 1)]


def make_items(dice: Dice, kind: str) -> tuple[dict[str, int], Decimal]:
    """One to six articles, and what they cost."""
    items: dict[str, int] = {}
    for _ in range(dice.one([1, 1, 1, 2, 2, 3, 4, 5])):
        items[dice.one(list(PRICES))] = dice.number(3, 8) if dice.chance(0.1) else dice.number(1, 3)
    if dice.chance(0.3):
        items[dice.one(list(PRECIOUS))] = 1
    if kind == "large":
        items["telescope"] = dice.number(3, 9)
    if kind == "very large":
        items["globe"] = dice.number(40, 150)
    if kind == "sold out":
        items[dice.one(list(SOLD_OUT))] = 1
    if kind == "too many":
        items["pencil"] = 50_000
    if kind == "cheap":
        items = {"pencil": 1}
    prices = {**PRICES, **PRECIOUS, **SOLD_OUT}
    return items, sum((Decimal(prices[article]) * pieces for article, pieces in items.items()), Decimal(0))


def make_order(number: int, dice: Dice) -> dict[str, Any]:
    kinds = {11: "large", 26: "very large", 17: "sold out", 58: "too many", 23: "cheap"}
    kind = next((kind for every, kind in kinds.items() if number % every == every // 2), "plain")
    items, total = make_items(dice, kind)
    currency = dice.one(["EUR", "EUR", "EUR", "GBP", "USD", "CHF", "KWD"])
    if kind == "cheap" and dice.chance(0.5):
        total = Decimal(0)  # a sample, with our compliments
    if currency == "KWD":
        total = total.quantize(Decimal("0.001"))
    order: dict[str, Any] = {"id": f"order-{number:04}", "customer": dice.one(CUSTOMERS).strip(), "items": items}
    # A JSON number now and then, as shops that grew up with another API send it.
    order |= {"total": int(total) if total == int(total) and dice.chance(0.5) else str(total), "currency": currency}
    declined = "-0002" if number % 19 == 7 else "-9995" if number % 61 == 13 else ""
    order |= {"card": f"4{dice.number(100, 999)}{declined or f'-{dice.number(3000, 9000)}'}"}
    order |= {"country": "AQ" if number % 29 == 9 else "BV" if number % 97 == 50 else dice.one(COUNTRIES)}
    if dice.chance(0.3):
        order["express"] = dice.chance(0.9)
    if dice.chance(0.2):
        order["note"] = dice.one(NOTES)
    if dice.chance(0.15):
        order["gift"] = {"wrap": dice.one(["red", "gold"]), "card": None if dice.chance(0.5) else dice.one(NOTES)}
    if dice.chance(0.1):
        order["coupon"] = f"RAIN{dice.number(5, 25)}"
    return order


def main() -> None:
    dice = Dice(20_261_122)
    for number in range(1, COUNT + 1):
        sys.stdout.write(json.dumps(make_order(number, dice), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

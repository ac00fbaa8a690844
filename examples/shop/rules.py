"""What the shop sells and what it refuses, as data: the service acts on it, and whoever checks the service reads it."""

SHELF: dict[str, int] = {
    "almanac": 40_000,
    "barometer": 40_000,
    "candle": 40_000,
    "compass": 40_000,
    "globe": 40_000,
    "hourglass": 40_000,
    "kite": 40_000,
    "lantern": 40_000,
    "map": 40_000,
    "pencil": 40_000,
    "raincoat": 40_000,
    "sextant": 40_000,
    "sundial": 40_000,
    "telescope": 40_000,
    "thermometer": 40_000,
    "umbrella": 40_000,
    "weather-vane": 40_000,
    "orrery": 0,
    "storm-glass": 0,
}
"""Pieces of each article on the first day. Two are sold out."""

DECLINED_CARDS = {"0002": "card declined", "9995": "insufficient funds"}
"""The last four digits of cards that no payment succeeds with, and why."""

NO_CARRIER = {"AQ", "BV"}
"""Countries that no parcel goes to."""


def decline_reason(card: str) -> str | None:
    return DECLINED_CARDS.get(card[-4:])

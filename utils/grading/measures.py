"""Measures of several units: `2 hours and 30 minutes`, `kg m/s`, `J mol^{-1} K^{-1}`."""

from __future__ import annotations

import re
from collections import Counter

_TIMES_AND_LENGTHS = {
    **dict.fromkeys(("week", "weeks"), "weeks"), **dict.fromkeys(("day", "days"), "days"),
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "h"), "hours"),
    **dict.fromkeys(("minute", "minutes", "min", "mins"), "minutes"),
    **dict.fromkeys(("second", "seconds", "sec", "secs", "s"), "seconds"),
    **dict.fromkeys(("foot", "feet", "ft"), "feet"),
    **dict.fromkeys(("inch", "inches", "in"), "inches"),
    **dict.fromkeys(("pound", "pounds", "lb", "lbs"), "pounds"),
    **dict.fromkeys(("ounce", "ounces", "oz"), "ounces"),
    **dict.fromkeys(("dollar", "dollars"), "dollars"), **dict.fromkeys(("cent", "cents"), "cents"),
    **dict.fromkeys(("year", "years"), "years"), **dict.fromkeys(("month", "months"), "months"),
}  # fmt: skip
_PART = r"(\d+)\s*({})\.?".format("|".join(sorted(_TIMES_AND_LENGTHS, key=len, reverse=True)))
_PARTS = re.compile(rf"{_PART}(?:\s*,?\s*(?:and\s+)?{_PART})+")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mbox|textrm)\s*\{([^{}]*)\}")
# Symbols that stand alone as a unit keep their names in `units`; here they are factors.
_SYMBOLS = {
    "m": "meter", "s": "second", "kg": "kilogram", "g": "gram", "cm": "centimeter",
    "mm": "millimeter", "km": "kilometer", "h": "hour", "min": "minute", "N": "newton",
    "J": "joule", "kJ": "kilojoule", "W": "watt", "V": "volt", "A": "ampere", "C": "coulomb",
    "K": "kelvin", "mol": "mole", "Pa": "pascal", "T": "tesla", "F": "farad", "rad": "radian",
    "L": "liter", "eV": "electronvolt", "Hz": "hertz", "lb": "pound", "ft": "foot",
    "ohm": "ohm", "nm": "nanometer", "MeV": "megaelectronvolt", "keV": "kiloelectronvolt",
    "micrometer": "micrometer", "nanometers": "nanometer",
}  # fmt: skip
_MAY_BE_A_NAME = ("A", "C", "F", "K", "T")
_MEASURES = {1: "{}", 2: "square {}", 3: "cubic {}"}
_TAIL = re.compile(r"(?P<core>.*?[\d})])\s*(?:\\ )*(?P<unit>(?:\\mu\s*)?\\text\s*\{.*|\\Omega)\s*")
_FACTOR = re.compile(
    r"\s*(?P<sign>[*/()]|)\s*(?:(?P<symbol>[A-Za-z]+)(?:\^\(?(?P<power>-?\d)\)?)?|)"
)


def joined_measures(text: str) -> str:
    """Write a measure in two units or more with one spelling of them.

    >>> joined_measures("1 hr 20 min"), joined_measures("5 feet, 6 inches"), joined_measures("5 ft")
    ('1 hours 20 minutes', '5 feet 6 inches', '5 ft')
    """
    if not text[:1].isdigit() or not text.rstrip(".} ")[-1:].isalpha():
        return text
    match = _PARTS.fullmatch(_WRAPPED.sub(r" \1 ", text).replace("\\ ", " ").strip(" ."))
    if match is None:
        return text
    parts = re.findall(_PART, match[0])
    names = [_TIMES_AND_LENGTHS[word] for _, word in parts]
    if len(set(names)) < len(names):
        return text
    return " ".join(f"{number} {name}" for (number, _), name in zip(parts, names, strict=True))


def split_compound(text: str) -> tuple[str, str] | None:
    """Split off a product or quotient of units' symbols, in one order; None for any other text.

    >>> split_compound(r"2 \\text{ kg* m/s}"), split_compound(r"2 \\text{J} \\text{mol}^{-1}")
    (('2', 'kilogram meter per second'), ('2', 'joule per mole'))
    >>> split_compound(r"2 \\text{ dogs}")
    """
    if "\\text" not in text and "\\Omega" not in text:
        return None
    match = _TAIL.fullmatch(text)
    if match is None or "\\text" in match["core"]:
        return None
    unit = match["unit"].replace("\\Omega", "ohm").replace("\\mu", "micro ")
    unit = re.sub(r"[{}~]|\\ ", " ", unit.replace("\\text", " "))
    unit = re.sub(r"\s*\^\s*(-?)\s*(\d)", r"^\1\2", re.sub(r"micro\s+m\b", "micrometer", unit))
    powers = _powers(unit)
    if not powers or (unit.strip() in _MAY_BE_A_NAME and not re.search(r"[.^]", match["core"])):
        return None
    return match["core"].strip(), _name(powers)


def _powers(unit: str) -> Counter[str] | None:
    """Count the units of a product; what follows a stroke, one factor or a bracket, divides."""
    powers: Counter[str] = Counter()
    at, direction, inside = 0, 1, False
    unit = unit.strip()
    while at < len(unit):
        factor = _FACTOR.match(unit, at)
        if factor is None or factor.end() == at:
            return None
        at = factor.end()
        sign, symbol = factor["sign"], factor["symbol"]
        if sign == "/":
            direction = -1
        elif sign == "(":
            inside = True
        elif sign == ")":
            inside, direction = False, 1
        if symbol is None:
            continue
        if symbol not in _SYMBOLS:
            return None
        powers[_SYMBOLS[symbol]] += direction * int(factor["power"] or 1)
        direction = direction if inside else 1
    return powers


def _name(powers: Counter[str]) -> str:
    """Name a product of units as `units` names one: `meter per square second`."""
    above = [_power(unit, count) for unit, count in sorted(powers.items()) if count > 0]
    below = [f"per {_power(unit, -count)}" for unit, count in sorted(powers.items()) if count < 0]
    return " ".join(above + below)


def _power(unit: str, count: int) -> str:
    return _MEASURES.get(count, f"{{}} to the {count}").format(unit)

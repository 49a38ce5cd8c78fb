"""Chinese words around an answer: openings dropped, units written as ours, counters left out."""

from __future__ import annotations

import re
from decimal import Decimal

_CHINESE = re.compile("[\u4e00-\u9fff]")
_OPENING = re.compile(
    r"(?:(?:故|所以|因此|综上所述|综上|则|正确答案|答案|答|应选|选择|选|为|是)[\s,:，：]*)+(?=[^\s.。])"
)
_UNITS = {
    "平方厘米": "cm^2", "平方分米": "dm^2", "平方千米": "km^2", "平方米": "m^2",
    "立方厘米": "cm^3", "立方分米": "dm^3", "立方米": "m^3", "千米/小时": "km/h",
    "千米/时": "km/h", "米/秒": "m/s", "厘米": "cm", "毫米": "mm", "分米": "dm", "千米": "km",
    "公里": "km", "米": "m", "千克": "kg", "公斤": "kg", "克": "g", "吨": "tons", "毫升": "mL",
    "升": "L", "小时": "hours", "分钟": "minutes", "秒": "seconds", "天": "days", "元": "yuan",
}  # fmt: skip
# Not 对 and 双, two of a kind, nor 打, twelve.
_COUNTERS = "个只种人名位件张条本次支枝棵辆颗块道页岁"
_SCALES = {"万": 10**4, "亿": 10**8}
_SCALED = re.compile(r"(?<![\w.,/^}])(\d+(?:\.\d+)?)\s*([万亿])(?![\d万亿])")
_AFTER_A_NUMBER = re.compile(
    r"(?<=[\d})])\s*(?:\\(?:text|mathrm)\s*\{\s*)?"
    rf"(?:(?P<unit>{'|'.join(_UNITS)})|(?P<degree>度)|[{_COUNTERS}])\s*\}}?\s*[.。]?$"
)


def in_english(text: str) -> str:
    """Rewrite what Chinese words say of an answer; any other word stays and makes it another one.

    >>> in_english("答案：3"), in_english("60度"), in_english("不是3"), in_english("第3个")
    ('3', '60°', '不是3', '第3')
    >>> in_english("1.5万"), in_english("1.5万元")
    ('15000', '15000\\\\text{ yuan}')
    """
    if not _CHINESE.search(text):
        return text
    if opening := _OPENING.match(text):
        text = text[opening.end() :]
    return _AFTER_A_NUMBER.sub(_unit, _SCALED.sub(_scaled, text))


def _scaled(match: re.Match[str]) -> str:
    digits = format(Decimal(match[1]) * _SCALES[match[2]], "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _unit(match: re.Match[str]) -> str:
    if match["degree"]:
        return "°"
    return rf"\text{{ {_UNITS[match['unit']]}}}" if match["unit"] else ""

"""Numbers and dates in text, and whether two of them agree.

A number agrees with another if one is the other rounded: "67 million" and "66,987,244", "3.14" and "3.14159".
Years and small counts must be equal. A hedge widens the range ("about 70 million") or opens one side ("over 60").
"""

import re
from dataclasses import dataclass

from maskdpo.text.claims.words import ABOUT, MAGNITUDES, MONTHS, OVER, UNDER

OPEN_SIDE = 0.6
"""The reach of "over" and "under", as a share: "over 15 million" agrees with 24 million, not with 100 million."""

_M = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
DATE = (
    rf"(?P<mdy>\b{_M}\.?\s{_DAY},?\s\d{{4}}\b)|(?P<dmy>\b{_DAY}\s(?:of\s)?{_M}\.?,?\s\d{{4}}\b)"
    r"|(?P<iso>\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b)"
    r"|(?P<zh>\d{4}\s?年(?:\s?\d{1,2}\s?月(?:\s?\d{1,2}\s?日)?)?)"
    rf"|(?P<my>\b{_M}\.?,?\s\d{{4}}\b)|(?P<md>\b{_M}\.?\s{_DAY}\b(?!,?\s?\d))"
    rf"|(?P<dm>\b{_DAY}\s(?:of\s)?{_M}\b)"
)
DATE_FORMS = ("mdy", "dmy", "iso", "zh", "my", "md", "dm")
NUMBER = (
    r"(?P<num>(?<![^\W_\u3400-\u9fff])[-−]?\d+(?:[,\u202f\u00a0]\d{3})*(?:\.\d+)?)"
    r"(?P<ord>(?:st|nd|rd|th)\b|s\b)?"
    r"(?:[\s-]?(?P<mag>hundred|thousand|(?:m|b|tr)illion|[mb]n|百万|万亿|[万亿千百])(?!\w*[a-z]))?"
    r"(?P<pct>\s?%|\s?per\s?cent\b)?"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, or a date where ``date`` is set; ``low`` to ``high`` are the values that it can stand for."""

    text: str
    value: float
    low: float
    high: float
    unit: str = ""
    """``%`` for a percentage, ``year``, ``nth`` for an ordinal, else empty."""
    date: tuple[int, int, int] | None = None
    """Year, month, day; 0 where the text does not give it."""

    @property
    def kind(self) -> str:
        return "date" if self.date or self.unit == "year" else "number"


def parse_date(form: str, text: str) -> Quantity | None:
    """A date from the text of the group ``form`` of ``DATE``; None where there is no such day."""
    words = [w for w in re.split(r"[\s,./年月日-]+", text) if w and w != "of"]
    year = month = day = 0
    if form in ("iso", "zh"):
        year, month, day = (*(int(w) for w in words), 0, 0)[:3]
    else:
        fields = dict(zip(form, words, strict=True))
        year = int(fields.get("y", 0))
        month = MONTHS.get(fields["m"], 0)
        day = int(re.sub(r"\D", "", fields["d"])) if "d" in fields else 0
    if month > 12 or day > 31:
        return None
    return Quantity(text, year, year, year, "year", (year, month, day))


def parse_number(match: re.Match[str], hedge: str) -> Quantity | None:
    """A number from a match of ``NUMBER``; ``hedge`` is the word before it."""
    digits = re.sub(r"[,\u202f\u00a0]", "", match["num"]).replace("−", "-")
    if len(digits) > 30:
        return None
    scale = MAGNITUDES[match["mag"].lower()] if match["mag"] else 1.0
    value = float(digits) * scale
    if match["pct"]:
        unit = "%"
    elif match["ord"] and match["ord"] != "s":
        unit = "nth"
    else:
        is_year = len(digits) == 4 and digits.isdigit() and "," not in match["num"] and not match["mag"]
        unit = "year" if is_year and 1000 <= value <= 2100 else ""
    if unit == "year" and match["ord"]:  # the 1980s
        return Quantity(match[0], value, value, value + (99 if value % 100 == 0 else 9), unit)
    return make_number(match[0], value, _resolution(digits) * scale, unit, hedge)


def make_number(text: str, value: float, resolution: float, unit: str, hedge: str) -> Quantity:
    """A number with the interval of values that its rounding and its hedge allow."""
    if unit in ("year", "nth"):
        return Quantity(text, value, value, value, unit)
    size = abs(value)
    slack = min(resolution / 2, 0.05 * size if resolution > 1 else 0.02 * size)
    if hedge in OVER:
        return Quantity(text, value, value - slack, value + OPEN_SIDE * size, unit)
    if hedge in UNDER:
        return Quantity(text, value, value - OPEN_SIDE * size, value + slack, unit)
    if hedge in ABOUT:
        slack = max(slack, 0.05 * size)
    return Quantity(text, value, value - slack, value + slack, unit)


def join_range(first: Quantity, last: Quantity) -> Quantity:
    """The range from ``first`` to ``last``; in "60 to 70 million" the magnitude holds for both."""
    low, high = first.value, last.value
    for word, scale in sorted(MAGNITUDES.items(), key=lambda item: -len(item[0])):  # 百万 before 万
        if last.text.lower().endswith(word) and first.text.replace(".", "").isdigit():
            low *= scale
            break
    return Quantity(f"{first.text} to {last.text}", (low + high) / 2, min(low, high), max(low, high), last.unit)


def _resolution(digits: str) -> float:
    """The value of the last significant digit: 0.1 for "6.5", 1000 for "67000", 1 for "120"."""
    if "." in digits:
        return float(10.0 ** -len(digits.split(".")[1]))
    zeros = len(digits) - len(digits.rstrip("0"))
    return float(10.0**zeros) if len(digits) > 3 else 1.0


def agree(claim: Quantity, known: Quantity) -> bool:
    """Whether the reference's quantity supports the claimed one."""
    if claim.date or (known.date and claim.low == claim.high):
        mine, theirs = claim.date or (int(claim.value), 0, 0), known.date or (int(known.value), 0, 0)
        if claim.kind != known.kind:
            return False
        return all(a == b or not a for a, b in zip(mine, theirs, strict=True))
    if {claim.unit, known.unit} & {"%", "nth"} and claim.unit != known.unit:
        return False
    if "year" in (claim.unit, known.unit) and claim.unit != known.unit:
        return claim.value == known.value
    return claim.low <= known.value <= claim.high or known.low <= claim.value <= known.high

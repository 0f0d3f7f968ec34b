"""Patterns of Markdown's markers: what begins a list item, heading, fence or formula; what is no sentence."""

import re

from maskdpo.text.splitters.inline import CITATION, TERMINATORS
from maskdpo.text.splitters.inline_lists import BULLETS

# Not every number or letter at the start of a line is a list marker. "1.Abigail" is a list item, "3.14" is
# not; "a. Paris" is, and "A. Lincoln", "p. 5", "c. 1900" are not; "(2) Rome" is, "(212) 555" is not; "II. Methods"
# is, "I. Newton" is not. A number without a text after it is an answer ("42."), not an empty item.
_MARK = (
    r"(?:[-*+–](?=\s|$)"
    rf"|[{BULLETS}]"
    r"|(?:\d{1,3}|[ivx]{2,4}|[IVX]{2,5})(?:\.\)|[.)])(?=\s+\S)"
    r"|[a-i](?:\.\)|[.)])(?=\s+[^\W\d])"
    r"|[A-Z]\)(?=\s+\S)"
    r"|[(（](?:\d{1,2}[)）](?=\s*[^\s\d])|[a-z][)）](?=\s+\S))"
    r"|\d{1,3}[.)](?=[^\W\d_a-z]|[\"“(*])"
    r"|\d{1,3}[、．](?=\s*\S))"
)
PREFIX = re.compile(rf"(?P<quote>\s*(?:>\s*)*)(?P<marks>(?:(?:{_MARK}\s*)+(?:\[[ xX]\]\s+(?=\S))?)?)")
FENCE = re.compile(r"(`{3,}(?=[^`]*$)|~{3,})")
HEADING = re.compile(r"#{1,6}(?:\s+|$)")
HEADING_END = re.compile(r"(?:(?<=\s)|^)#+$")
RULE = re.compile(r"([-*_=])(?:\s*\1){2,}$")
SEPARATOR = re.compile(r"(?=[^|]*\|)[\s|:-]+$")
PLAIN_START = re.compile(r"[^\W\d_]{2}(?![ivxIVX]{0,3}[.)])")
ENDS_SENTENCE = re.compile(
    rf"[{TERMINATORS}:;：；؛](?:[\"'”’»›)\]*_」』）】》$]|\\[)\]]|\s?(?:{CITATION}))*$",
)

_TARGET = r"(?:\((?:[^()\n]|\([^()\n]*\))*\)|\[[^\[\]\n]*\])"
_IMAGE = rf"!\[(?:[^\[\]\n]|\[[^\[\]\n]*\])*\]{_TARGET}"
IMAGES = re.compile(rf"(?:\s*(?:\[\s*{_IMAGE}\s*\]{_TARGET}|{_IMAGE}|<img\b[^<>\n]*>))+\s*$")
"""Images that stand alone, each perhaps inside a link."""

_BREAK = re.compile(r"`[^`]*`|(<br\s*/?>)", re.IGNORECASE)
_UNBROKEN = re.compile(r"[\s>]*(?:#{1,6}\s|.*\|)")  # in headings and rows of tables `<br>` ends nothing

_FORMULA = re.compile(r"(\$\$|\\\[|\\begin\{([a-z]{1,12}\*?)\})")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_FORMULA_SIZE = 4000


def at_breaks(line: str) -> list[str]:
    """The parts of a line that end with ``<br>``, and the rest. Breaks in code, headings and tables are none."""
    if _UNBROKEN.match(line):
        return [line]
    ends = [found.end() for found in _BREAK.finditer(line) if found[1]]
    parts = [line[start:end] for start, end in zip([0, *ends], [*ends, len(line)], strict=True)]
    if len(parts) > 1 and not parts[-1].strip():
        parts[-2:] = [parts[-2] + parts[-1]]
    return parts


def without_break(part: str) -> str:
    """A part of ``at_breaks`` without its ``<br>`` and the white space at its end."""
    body = part.rstrip()
    if body.endswith(">") and (found := re.search(r"<br\s*/?>$", body, re.IGNORECASE)):
        return body[: found.start()].rstrip()
    return body


def formula_end(text: str, after: int, rest: str) -> str:
    """What closes the formula of several lines that ``rest`` opens; empty where it opens none.

    A formula has no blank line. ``after``: where the next line begins in ``text``.
    """
    found = _FORMULA.match(rest)
    if found is None:
        return ""
    closing = {"$$": "$$", "\\[": "\\]"}.get(found[1], f"\\end{{{found[2]}}}")
    if closing in rest[found.end() :]:
        return ""
    end = text.find(closing, after, after + _FORMULA_SIZE)
    return closing if end >= 0 and not _BLANK_LINE.search(text, after, end) else ""

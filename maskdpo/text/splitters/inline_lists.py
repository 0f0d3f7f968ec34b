"""Lists inside a line: "Presidents: 1.Washington 2.Adams", "• one • two", "a. The one b. The other"."""

import re

BULLETS = "•⁃●▪‣◦"
"""Characters that are always bullets, so that they need no space after them."""

_NUMBER = re.compile(r"(?<![\w.,$€£¥#-])[(（]?(\d{1,2})(?:\.\)|[.)）、．])(?:\s+(?=\S)|(?=[^\W\d_a-z]|[\"“*]))")
_LETTER = re.compile(r"(?<!\S)\(?([a-z])(?:\.\)|[.)])\s+(?=\S)")
_BULLET = re.compile(rf"(?<!\S)[{BULLETS}]\s*(?:\d{{1,3}}[.)]\s*(?=\S))?")
_ANY_BULLET = re.compile(f"[{BULLETS}]")
_MAY_START = re.compile(r"(?:^[\s>]*|[:：;；.。!?！？，,][\"”’)*]*|\bare|\bis|\binclude)\s*$")


def inline_markers(line: str, skip: int) -> list[tuple[int, int]]:
    """The spans of list markers inside ``line``, after the marker ``line[:skip]`` at its start.

    Numbers are a list only if there are at least two, they begin with 1 at the start of the line or after
    punctuation, they increase by one, and no item begins in lower case; the same holds for letters. So "the 2.
    Bundesliga" and "Apollo 11. It" have no list, and "for two reasons: 1) it is cheap and 2) it is good" stays one
    sentence.
    """
    if skip and _ANY_BULLET.search(line, 0, skip):
        return [match.span() for match in _BULLET.finditer(line, skip)]
    for pattern, ones, twos in (
        (_NUMBER, ("1.", "1)", "1）", "1、", "1．"), ("2.", "2)", "2）", "2、", "2．")),
        (_LETTER, ("a.", "a)"), ("b.", "b)")),
    ):
        if any(one in line for one in ones) and any(two in line for two in twos):  # faster than the pattern
            run = _run(line, pattern, ones[0][0])
            if len(run) > 1 and not any(line[end].islower() for _, end in run):
                return [span for span in run if span[0] >= skip]
    return []


def _run(line: str, pattern: re.Pattern[str], expected: str) -> list[tuple[int, int]]:
    """The longest run of markers 1, 2, 3 ... that begins with the first possible 1."""
    run: list[tuple[int, int]] = []
    for match in pattern.finditer(line):
        at = match.start()
        if match[1] == expected and (run or _MAY_START.search(line, max(0, at - 16), at)):
            run.append(match.span())
            expected = str(int(expected) + 1) if expected.isdigit() else chr(ord(expected) + 1)
    return run

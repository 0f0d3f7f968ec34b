"""Lists inside a line: "The first three: 1.Washington 2.Adams 3.Jefferson", "• one • two", "a. The first b. The second"."""

import re

_NUMBER = re.compile(
    r"(?<![\w.,$€£¥#-])[(（]?(\d{1,2})(?:\.\)|[.)）、．])(?:\s+(?=\S)|(?=[^\W\d_a-z]|[\"“*]))"
)
_LETTER = re.compile(r"(?<!\S)[(]?([a-z])(?:\.\)|[.)])\s+(?=\S)")
_BULLET = re.compile(r"(?<!\S)[•⁃●▪‣◦]\s*(?:\d{1,3}[.)]\s*)?")
_MAY_START = re.compile(r"(?:^|[:：;；.。!?！？,，][\"”’)*]*|\bare|\bis|\binclude)\s*$")


def inline_markers(line: str, skip: int) -> list[tuple[int, int]]:
    """Where list markers stand inside ``line``, after its own marker ``line[:skip]``.

    Numbers count as a list only if they start at 1, at the start of the line or after punctuation, go up by one, and are
    two at least; letters alike. So "Henry VIII. 2. Bundesliga" and "Apollo 11. It" are left alone.
    """
    if any(bullet in line for bullet in "•⁃●▪‣◦") and line.lstrip()[0] in "•⁃●▪‣◦":
        return [match.span() for match in _BULLET.finditer(line, skip)]
    for pattern, first in ((_NUMBER, "1"), (_LETTER, "a")):
        run = _run(line, pattern, first)
        if len(run) > 1:
            return [span for span in run if span[0] >= skip]
    return []


def _run(line: str, pattern: re.Pattern[str], expected: str) -> list[tuple[int, int]]:
    """The longest run of markers 1, 2, 3 ... that begins with the first possible 1."""
    run: list[tuple[int, int]] = []
    for match in pattern.finditer(line):
        if match[1] == expected and (run or _MAY_START.search(line, 0, match.start())):
            run.append(match.span())
            expected = str(int(expected) + 1) if expected.isdigit() else chr(ord(expected) + 1)
    return run

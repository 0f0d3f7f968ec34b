"""Markdown blocks: where fences, headings, tables, list items, quotes and paragraphs are.

``parse`` returns the blocks, and a copy of the text of the *same length* in which every marker and line end is a
space. So the positions of sentences in the copy are those in the text, and no marker belongs to a sentence.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from maskdpo.schemas.labels import Kind
from maskdpo.text.splitters.inline_lists import BULLETS, inline_markers

# Not every number or letter at the start of a line is a list marker. "1.Abigail" is a list item, "3.14" is
# not; "a. Paris" is, and "A. Lincoln", "p. 5", "c. 1900" are not; "(2) Rome" is, "(212) 555" is not. A
# number without a text after it is an answer ("42."), not an empty item.
_MARK = (
    r"(?:[-*+–](?=\s|$)"
    rf"|[{BULLETS}]"
    r"|(?:\d{1,3}|[ivx]{2,4})(?:\.\)|[.)])(?=\s+\S)"
    r"|[a-i](?:\.\)|[.)])(?=\s+[^\W\d])"
    r"|[A-Z]\)(?=\s+\S)"
    r"|[(（](?:\d{1,2}[)）](?=\s*[^\s\d])|[a-z][)）](?=\s+\S))"
    r"|\d{1,3}[.)](?=[^\W\d_a-z]|[\"“(*])"
    r"|\d{1,3}[、．](?=\s*\S))"
)
_PREFIX = re.compile(rf"(?P<quote>\s*(?:>\s*)*)(?P<marks>(?:(?:{_MARK}\s*)+(?:\[[ xX]\]\s+(?=\S))?)?)")
_FENCE = re.compile(r"(`{3,}(?=[^`]*$)|~{3,})")
_HEADING = re.compile(r"#{1,6}(?:\s+|$)")
_HEADING_END = re.compile(r"(?:(?<=\s)|^)#+$")
_RULE = re.compile(r"([-*_=])(?:\s*\1){2,}$")
_SEPARATOR = re.compile(r"(?=[^|]*\|)[\s|:-]+$")
_PLAIN_START = re.compile(r"[^\W\d_]{2}(?![ivx]{0,2}[.)])")
_ENDS_SENTENCE = re.compile(r"[.!?:;。！？：；…][\"'”’)\]*_」』）】]*$")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uff60]")
_WRAP_COLUMNS = 60
_SHORT_LINE = 40


class Block(NamedTuple):
    """A part of the text that contains whole sentences. ``whole``: it is one span; else it is cut into sentences."""

    start: int
    end: int
    kind: Kind
    whole: bool = False


class _Line(NamedTuple):
    start: int
    end: int
    hard: bool  # Markdown's own line break follows: two spaces or a backslash


@dataclass
class _State:
    blocks: list[Block] = field(default_factory=list)
    copy: list[str] = field(default_factory=list)
    paragraph: list[_Line] = field(default_factory=list)
    kind: Kind = Kind.PROSE
    depth: int = 0  # of block quotes
    in_list: bool = False  # an indented paragraph still belongs to the list item above it
    in_table: bool = False
    fence: str = ""  # the opening run of an open fence
    code_start: int = 0

    def flush(self, text: str) -> None:
        """End the paragraph: lines that continue each other become one block."""
        if self.paragraph:
            for start, end in _join_lines(text, self.paragraph):
                self.blocks.append(Block(start, end, self.kind))
            self.paragraph = []


def parse(text: str) -> tuple[list[Block], str]:
    """The blocks of ``text``, ordered and disjoint, and the copy without markers.

    Lines are those of ``str.splitlines``. Blocks are not trimmed and may be blank.
    """
    state = _State()
    at = 0
    for line in text.splitlines(keepends=True):
        body = line.rstrip()
        kept = _read_line(text, at, line, body, state) if body else _blank_line(text, state)
        state.copy.append(kept + " " * (len(line) - len(kept)))
        at += len(line)
    state.flush(text)
    if state.fence:
        state.blocks.append(Block(state.code_start, at, Kind.CODE, whole=True))
    copy = "".join(state.copy)
    if not copy.isascii():
        copy = _SURROGATE.sub("\ufffd", copy)  # a lone surrogate cannot be passed to Rust
    return state.blocks, copy


def _blank_line(text: str, state: _State) -> str:
    if not state.fence:
        state.flush(text)
        state.kind, state.in_table = Kind.PROSE, False
    return ""


def _read_line(text: str, at: int, line: str, body: str, state: _State) -> str:
    """Read one line that is not blank. Returns the beginning of the line as it is in the copy; the rest is blank."""
    if not (state.fence or state.depth or "|" in body) and _PLAIN_START.match(body):  # most lines
        return _text_line(text, at, line, body, 0, state, Kind.PROSE)
    prefix = _PREFIX.match(body)
    assert prefix is not None  # every part of it may be empty
    depth = prefix["quote"].count(">")
    if state.fence:
        if depth >= state.depth:
            return _code_line(at, line, body, prefix.end("quote") if state.depth else 0, state)
        _close_fence(at, state)  # a fence ends with its block quote
    if depth != state.depth:
        state.flush(text)
        state.kind, state.depth = Kind.PROSE, depth
        state.in_list = state.in_table = False
    unquoted = body[prefix.end("quote") :]
    if _RULE.match(unquoted) or _SEPARATOR.match(unquoted):
        return _rule_line(text, unquoted, state)
    return _marked_line(text, at, line, body, prefix, state)


def _rule_line(text: str, unquoted: str, state: _State) -> str:
    """A thematic break, the underline of a heading or the separator row of a table: none of them is a sentence."""
    title = state.paragraph
    if title and "|" in unquoted and "|" in text[title[-1].start : title[-1].end]:  # a table's head
        head = title.pop()
        state.flush(text)
        state.blocks.append(Block(head.start, head.end, Kind.TABLE, whole=True))
        state.in_table = True
    elif len(title) == 1 and unquoted[0] in "-=" and "|" not in unquoted and state.kind is Kind.PROSE:
        start, end, _ = title[0]
        if not _ENDS_SENTENCE.search(text[start:end]):  # a rule below a sentence underlines nothing
            state.blocks.append(Block(start, end, Kind.HEADING, whole=True))
            state.paragraph = []
    state.flush(text)
    return ""


def _marked_line(text: str, at: int, line: str, body: str, prefix: re.Match[str], state: _State) -> str:
    """A line whose quote signs and list markers are known: read what follows them."""
    skip = prefix.end()
    rest = body[skip:]
    if not rest:
        state.flush(text)
        return ""
    if fence := _FENCE.match(rest):
        state.flush(text)
        state.fence, state.code_start = fence[1], at + len(line)
        return ""
    if heading := _HEADING.match(rest):
        state.flush(text)
        state.kind, state.in_list = Kind.PROSE, False
        title = _HEADING_END.sub("", rest[heading.end() :])
        start = at + skip + heading.end()
        state.blocks.append(Block(start, start + len(title), Kind.HEADING, whole=True))
        return " " * (skip + heading.end()) + title
    # Without a separator row, a table's row is known by its pipes; "|x - y|" is none.
    if "|" in rest and (state.in_table or (rest[0] == rest[-1] == "|" and rest.count("|") > 2)):
        state.flush(text)
        state.blocks.append(Block(at + skip, at + len(body), Kind.TABLE, whole=True))
        state.in_table = True
        return " " * skip + rest
    state.in_table = False
    if prefix["marks"]:
        state.flush(text)
        state.kind, state.in_list = Kind.LIST_ITEM, True
        return _text_line(text, at, line, body, skip, state, Kind.LIST_ITEM)
    indented = len(prefix["quote"].replace(">", "")) >= 2
    kind = Kind.LIST_ITEM if indented and state.in_list else Kind.PROSE
    return _text_line(text, at, line, body, skip, state, kind)


def _text_line(text: str, at: int, line: str, body: str, skip: int, state: _State, kind: Kind) -> str:
    """A line of a paragraph or list item, perhaps with a list inside it ("There are two: 1. a 2. b")."""
    if not state.paragraph and kind is not state.kind:
        state.kind = kind
    if not state.paragraph:
        state.in_list = kind is Kind.LIST_ITEM
    state.in_table = False
    kept = [" " * skip]
    start = skip
    for mark_start, mark_end in inline_markers(body, skip):
        if mark_start > start:
            state.paragraph.append(_Line(at + start, at + mark_start, hard=True))
        state.flush(text)
        state.kind, state.in_list = Kind.LIST_ITEM, True
        kept += [body[start:mark_start], " " * (mark_end - mark_start)]
        start = mark_end
    hard = body.endswith("\\") or line[len(body) :].startswith("  ")
    state.paragraph.append(_Line(at + start, at + len(body), hard))
    return "".join([*kept, body[start:]])


def _code_line(at: int, line: str, body: str, skip: int, state: _State) -> str:
    run = body[skip:].strip()
    if len(run) >= len(state.fence) and not run.strip(state.fence[0]):
        _close_fence(at, state)
        return ""
    return " " * skip + body[skip:]


def _close_fence(at: int, state: _State) -> None:
    state.blocks.append(Block(state.code_start, at, Kind.CODE, whole=True))
    state.fence = ""


def _join_lines(text: str, lines: list[_Line]) -> Iterator[tuple[int, int]]:
    """Ranges of lines that continue each other. Models seldom wrap lines, so most line ends are boundaries."""
    if len(lines) == 1:
        yield lines[0].start, lines[0].end
        return
    pieces = [text[line.start : line.end] for line in lines]
    bare_list = all(len(piece) < _SHORT_LINE and not _ENDS_SENTENCE.search(piece) for piece in pieces)
    start = lines[0].start
    for i in range(1, len(lines)):
        if bare_list or lines[i - 1].hard or not _runs_on(pieces[i - 1], pieces[i]):
            yield start, lines[i - 1].end
            start = lines[i].start
    yield start, lines[-1].end


def _runs_on(line: str, following: str) -> bool:
    """Whether ``following`` continues ``line``: it begins in lower case, or the line was full."""
    if _ENDS_SENTENCE.search(line):
        return False
    following = following.lstrip()
    if following[:1].islower():
        return True
    word = following.split(maxsplit=1)[0] if following else ""
    columns = len(line.strip()) + 1 + len(word if line.isascii() else word[:1])
    if not line.isascii():
        columns += len(_WIDE.findall(line))
    return columns > _WRAP_COLUMNS

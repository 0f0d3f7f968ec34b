"""Markdown blocks: where fences, headings, tables, list items, quotes and paragraphs are.

``parse`` returns the blocks, and a copy of the text of the *same length* in which every marker and line end is a
space. So the positions of sentences in the copy are those in the text, and no marker belongs to a sentence.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from maskdpo.schemas.labels import Kind
from maskdpo.text.splitters.inline_lists import inline_markers
from maskdpo.text.splitters.markers import (
    ENDS_SENTENCE,
    FENCE,
    HEADING,
    HEADING_END,
    IMAGES,
    PLAIN_START,
    PREFIX,
    RULE,
    SEPARATOR,
    at_breaks,
    formula_end,
    without_break,
)

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
    hard: bool  # a line break follows: two spaces, a backslash or <br>


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
    formula: str = ""  # what closes the open formula
    opened: int = 0  # where the content of the open fence or formula begins

    def flush(self, text: str) -> None:
        """End the paragraph: lines that continue each other become one block."""
        if self.paragraph:
            for start, end in _join_lines(text, self.paragraph):
                self.blocks.append(Block(start, end, self.kind))
            self.paragraph = []


def parse(text: str) -> tuple[list[Block], str]:
    """The blocks of ``text``, ordered and disjoint, and the copy without markers.

    Lines are those of ``str.splitlines``, and ``<br>`` ends one too. Blocks are not trimmed and may be blank.
    """
    state = _State()
    at = 0
    for whole in text.splitlines(keepends=True):
        breaks = "<" in whole and not (state.fence or state.formula)
        for line in at_breaks(whole) if breaks else (whole,):
            body = without_break(line) if breaks else line.rstrip()
            kept = _read_line(text, at, line, body, state) if body else _blank_line(text, state)
            state.copy.append(kept + " " * (len(line) - len(kept)))
            at += len(line)
    state.flush(text)
    if state.fence:
        state.blocks.append(Block(state.opened, at, Kind.CODE, whole=True))
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
    if not (state.fence or state.formula or state.depth or "|" in body) and PLAIN_START.match(body):  # most lines
        return _text_line(text, at, line, body, 0, state, Kind.PROSE)
    prefix = PREFIX.match(body)
    assert prefix is not None  # every part of it may be empty
    depth = prefix["quote"].count(">")
    if state.fence:
        if depth >= state.depth:
            return _code_line(at, line, body, prefix.end("quote") if state.depth else 0, state)
        _close_fence(at, state)  # a fence ends with its block quote
    if state.formula:
        return _formula_line(at, body, prefix.end("quote"), state)
    if depth != state.depth:
        state.flush(text)
        state.kind, state.depth = Kind.PROSE, depth
        state.in_list = state.in_table = False
    unquoted = body[prefix.end("quote") :]
    if RULE.match(unquoted) or SEPARATOR.match(unquoted):
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
        if not ENDS_SENTENCE.search(text[start:end]):  # a rule below a sentence underlines nothing
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
    if fence := FENCE.match(rest):
        state.flush(text)
        state.fence, state.opened = fence[1], at + len(line)
        return ""
    if rest[0] in "![<" and IMAGES.match(rest):
        state.flush(text)
        return ""
    if rest[0] in "$\\" and (closing := formula_end(text, at + len(line), rest)):
        state.flush(text)
        state.formula, state.opened = closing, at + skip
        return " " * skip + rest
    if heading := HEADING.match(rest):
        state.flush(text)
        state.kind, state.in_list = Kind.PROSE, False
        title = HEADING_END.sub("", rest[heading.end() :])
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
    hard = body.endswith("\\") or line[len(body) :].startswith("  ") or "<" in line[len(body) :]
    state.paragraph.append(_Line(at + start, at + len(body), hard))
    return "".join([*kept, body[start:]])


def _code_line(at: int, line: str, body: str, skip: int, state: _State) -> str:
    run = body[skip:].strip()
    if len(run) >= len(state.fence) and not run.strip(state.fence[0]):
        _close_fence(at, state)
        return ""
    return " " * skip + body[skip:]


def _formula_line(at: int, body: str, skip: int, state: _State) -> str:
    if state.formula in body:
        state.blocks.append(Block(state.opened, at + len(body), state.kind, whole=True))
        state.formula = ""
    return " " * skip + body[skip:]


def _close_fence(at: int, state: _State) -> None:
    state.blocks.append(Block(state.opened, at, Kind.CODE, whole=True))
    state.fence = ""


def _join_lines(text: str, lines: list[_Line]) -> Iterator[tuple[int, int]]:
    """Ranges of lines that continue each other. Models seldom wrap lines, so most line ends are boundaries."""
    if len(lines) == 1:
        yield lines[0].start, lines[0].end
        return
    pieces = [text[line.start : line.end] for line in lines]
    bare_list = all(len(piece) < _SHORT_LINE and not ENDS_SENTENCE.search(piece) for piece in pieces)
    start = lines[0].start
    for i in range(1, len(lines)):
        if bare_list or lines[i - 1].hard or not _runs_on(pieces[i - 1], pieces[i]):
            yield start, lines[i - 1].end
            start = lines[i].start
    yield start, lines[-1].end


def _runs_on(line: str, following: str) -> bool:
    """Whether ``following`` continues ``line``: it begins in lower case, or the line was full."""
    if ENDS_SENTENCE.search(line):
        return False
    following = following.lstrip()
    if following[:1].islower():
        return True
    word = following.split(maxsplit=1)[0] if following else ""
    columns = len(line.strip()) + 1 + len(word if line.isascii() else word[:1])
    if not line.isascii():
        columns += len(_WIDE.findall(line))
    return columns > _WRAP_COLUMNS

"""What a splitter is, and the frame of all built-in ones: the Markdown block pass, then a cutter in prose."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from maskdpo.schemas.records import Span
from maskdpo.text.splitters.blocks import parse

Cutter = Callable[[str, str], list[int]]
"""``cut(prose, language)``: where sentences of ``prose`` end, ascending. White space around a cut does not
matter, and the end of ``prose`` need not be among them. ``prose`` holds no line ends and no block markers.
"""


class Splitter(Protocol):
    """Finds the sentences of an answer.

    ``split`` returns spans that are ordered, disjoint, trimmed and not empty. Between them is nothing but
    white space and Markdown markers (docs/sentences.md lists them). The same text gives the same spans,
    always.
    """

    @property
    def name(self) -> str:
        """What goes into the records; two splitters that may cut differently have different names. One whose cuts
        change therefore gets another name, such as ``markdown-2``."""

    def split(self, text: str, language: str) -> list[Span]: ...


@dataclass(frozen=True, slots=True)
class BlockSplitter:
    """The block pass, then ``cut`` inside every stretch of prose."""

    name: str
    cut: Cutter

    def split(self, text: str, language: str) -> list[Span]:
        blocks, copy = parse(text)
        spans: list[Span] = []
        for block in blocks:
            prose = copy[block.start : block.end]
            cuts = [] if block.whole else self.cut(prose, language)
            for start, end in pairwise([0, *cuts, len(prose)]):
                piece = prose[start:end]
                if sentence := piece.strip():
                    first = block.start + start + len(piece) - len(piece.lstrip())
                    spans.append(Span(first, first + len(sentence), block.kind))
        return spans

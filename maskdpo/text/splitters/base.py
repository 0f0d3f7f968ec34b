"""The interface of splitters, and the common part of the built-in ones: find Markdown blocks, then cut their prose."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from maskdpo.schemas.records import Span
from maskdpo.text.splitters.blocks import parse

VERSION = "2"
"""In the names of the splitters below: labels on other cuts are not mixed. It changes where blocks or cuts change."""

Cutter = Callable[[str, str], list[int]]
"""``cut(prose, language)``: the ends of the sentences of ``prose``, ascending. White space around a cut does not
matter, and the end of ``prose`` may be left out. ``prose`` has no line ends and no block markers.
"""


class Splitter(Protocol):
    """Finds the sentences of an answer.

    ``split`` returns spans that are ordered, disjoint, trimmed and not empty. Between the spans are only white space
    and Markdown markers (docs/sentences.md lists them). The same text always gives the same spans.
    """

    @property
    def name(self) -> str:
        """The name in the records. Splitters that may cut differently have different names, so a splitter whose cuts
        change gets a new one, such as ``markdown-3``."""

    def split(self, text: str, language: str) -> list[Span]: ...


@dataclass(frozen=True, slots=True)
class BlockSplitter:
    """Finds the Markdown blocks, then cuts the prose inside each of them with ``cut``."""

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

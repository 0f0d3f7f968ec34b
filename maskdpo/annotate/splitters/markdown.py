"""The default splitter: the Markdown block pass, then sentencex inside prose."""

import sentencex

from maskdpo.annotate.splitters.base import BlockSplitter


def markdown_splitter() -> BlockSplitter:
    """The splitter ``markdown``. Needs no model and no download."""
    return BlockSplitter("markdown", cut)


def cut(prose: str, language: str) -> list[int]:
    """Where the sentences of ``prose`` end, by sentencex."""
    return [found["end_index"] for found in sentencex.get_sentence_boundaries(language, prose)]

"""Long references: as many of the passages that bear on the judged sentences as fit into the context of a judge."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise, zip_longest
from typing import Any, NamedTuple

import numpy as np

from maskdpo.text.language import detect_language
from maskdpo.text.lookup import bm25s, terms
from maskdpo.text.splitters import markdown

CountTokens = Callable[[str], int]
BYTES_PER_WORD = 6
PIECE_BYTES = 600  # in UTF-8: about 100 English words or 200 Chinese characters
GAP = "\n[...]\n"  # stands where pieces of a passage are left out
_SEPARATOR = "\n\n"  # between passages
_MAX_MISSES = 8  # after so many pieces that do not fit no more are tried: each costs a call of the tokenizer


@dataclass(frozen=True, slots=True)
class CutReference:
    """What is left of a reference. ``complete``: it has the whole of the best piece for every sentence."""

    text: str
    complete: bool


class _Piece(NamedTuple):
    passage: int
    start: int
    end: int
    text: str


class Passages:
    """A reference in pieces that can be ranked. It is split and indexed only when a cut first needs the pieces.

    ``text`` is the whole reference. Token counts of pieces are kept for the last ``count`` function that was passed.

    Args:
        piece_size: the size of the largest piece.
        measure: the size of a text: bytes in UTF-8, unless it is told.
    """

    def __init__(
        self, passages: Sequence[str], *, piece_size: int = PIECE_BYTES, measure: CountTokens | None = None
    ) -> None:
        self._piece_size, self._measure = piece_size, measure or _bytes
        self.text = _SEPARATOR.join(passages)
        self._passages = tuple(passages)
        self._counts: dict[str, int] = {}
        self._counter: CountTokens | None = None

    def all(self) -> list[str]:
        """All pieces in their order; without a reference the only piece is empty."""
        return [piece.text for piece in self._pieces] or [""]

    def best(self, sentence: str, most: int) -> list[str]:
        """The pieces that bear most on a sentence (BM25), the best first; the first piece where none has a word of it.

        Without a reference the only piece is empty.
        """
        pieces = [self._pieces[i].text for i in self._ranking(sentence)[:most]]
        return pieces or [self._pieces[0].text if self._pieces else ""]

    def cut(self, sentences: Sequence[str], budget: int, count: CountTokens) -> CutReference | None:
        """The whole reference if it has at most ``budget`` tokens, else its most relevant pieces in their order.

        Every sentence gets its best piece (BM25), then every sentence its second best, and so on. The pieces that bear
        on no sentence come last, from the beginning, which says what a document is about. If the most relevant piece
        is too long, the result is the beginning of this piece. None where nothing fits.
        """
        if self._count(self.text, count) <= budget:
            return CutReference(self.text, complete=True)
        if not self._pieces:
            return None
        rankings = [self._ranking(sentence) for sentence in sentences]
        best = {ranking[0] for ranking in rankings if ranking}
        rounds = chain(*zip_longest(*rankings), range(len(self._pieces)))
        order = list(dict.fromkeys(i for i in rounds if i is not None))
        if self._count(first := self._pieces[order[0]].text, count) > budget:
            short = _shorten(first, budget, count)
            return CutReference(short, complete=not best) if short else None
        chosen = self._choose(order, len(best), budget, count)
        # The joined text may have more tokens than its parts.
        while count(text := self._join(chosen)) > budget and len(chosen) > 1:
            chosen.pop()
        return CutReference(text, complete=best <= set(chosen))

    def _choose(self, order: list[int], required: int, budget: int, count: CountTokens) -> list[int]:
        """The pieces that fit, the most relevant first. The first ``required`` pieces are all tried."""
        gap = self._count(GAP, count)
        left, misses, chosen = budget + gap, 0, list[int]()
        for rank, i in enumerate(order):
            size = self._count(self._pieces[i].text, count) + gap
            if size <= left:
                chosen.append(i)
                left -= size
            elif (misses := misses + 1) > _MAX_MISSES and rank >= required:
                break
        return chosen

    def _join(self, chosen: Iterable[int]) -> str:
        kept, parts, last = set(chosen), list[str](), _Piece(-1, 0, 0, "")
        for i in sorted(kept):
            piece = self._pieces[i]
            if last.passage == piece.passage:
                parts.append(self._passages[piece.passage][last.end : piece.start] if i - 1 in kept else GAP)
            elif parts:
                parts.append(_SEPARATOR)
            parts.append(piece.text)
            last = piece
        return "".join(parts)

    def _count(self, text: str, count: CountTokens) -> int:
        if count != self._counter:
            self._counter, self._counts = count, {}
        if text not in self._counts:
            self._counts[text] = count(text)
        return self._counts[text]

    @cached_property
    def _pieces(self) -> list[_Piece]:
        pieces = []
        for number, passage in enumerate(self._passages):
            for start, end in pieces_of(passage, self._piece_size, self._measure):
                pieces.append(_Piece(number, start, end, passage[start:end]))
        return pieces

    @cached_property
    def _index(self) -> Any:
        """The BM25 index, or None if the reference has no words."""
        # imported late: slow to import, and most references need no cut
        words, index = [terms(piece.text) for piece in self._pieces], bm25s().BM25(backend="numpy")
        if any(words):
            index.index(words, show_progress=False)
        return index if any(words) else None

    def _ranking(self, sentence: str) -> list[int]:
        """The pieces that have a word in common with the sentence, the best first; of equal ones the earlier first."""
        if self._index is None:
            return []
        scores = self._index.get_scores_from_ids(self._index.get_tokens_ids(dict.fromkeys(terms(sentence))))
        return [i for i in np.argsort(-scores, kind="stable").tolist() if scores[i] > 0]


def _at(pattern: str) -> Callable[[str, str], list[int]]:
    return lambda text, _: [found.end() for found in re.finditer(pattern, text)]


def _sentences(text: str, language: str) -> list[int]:
    return markdown.cut(text.replace("\r", " ").replace("\n", " "), language)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space around them."""
    ends = [0, *_sentences(text, detect_language(text[:5000])), len(text)]
    return [sentence for start, end in pairwise(ends) if (sentence := text[start:end].strip())]


# Where a text may be cut, from the best places to the last resort. Line ends come late, because lines may be wrapped.
_PARAGRAPHS = _at(r"""\n\s*\n|[.!?。！？…][”’"')」』】]*\s*\n""")
_LEVELS = (_PARAGRAPHS, _sentences, _at(r"\n"), _at(r"\s+|[，、；：]"), _at(r"(?s:.)"))


def _bytes(text: str) -> int:
    return len(text.encode())


def pieces_of(text: str, most: int = PIECE_BYTES, measure: CountTokens = _bytes) -> Iterator[tuple[int, int]]:
    """Where the pieces of a text begin and end: each has at most the size ``most``, and ends with a paragraph or a
    sentence if possible. The white space around pieces is left out."""
    end = 0
    for part in [text] if measure(text) <= most else _split(text, detect_language(text[:5000]), most, measure):
        start = end + len(part) - len(part.lstrip())
        end += len(part)
        if piece := part.strip():
            yield start, start + len(piece)


def _split(text: str, language: str, most: int, measure: CountTokens, level: int = 0) -> Iterator[str]:
    """Pieces that make up the text, each of at most the size ``most``; small neighbouring parts stay together."""
    if level == len(_LEVELS) or measure(text) <= most:
        yield text
        return
    piece, left = "", most
    for start, end in pairwise([0, *_LEVELS[level](text, language), len(text)]):
        size = measure(part := text[start:end])
        if piece and size > left:
            yield from _split(piece, language, most, measure, level + 1)
            piece, left = "", most
        piece += part
        left -= size
    yield from _split(piece, language, most, measure, level + 1)


def _shorten(text: str, budget: int, count: CountTokens) -> str | None:
    """The longest beginning that fits: up to the end of a sentence if possible, else to the end of a word."""
    language = detect_language(text)
    for level in _LEVELS[1:]:
        ends = level(text, language)
        if fitting := bisect_left(ends, True, key=lambda end: count(text[:end].rstrip()) > budget):
            return text[: ends[fitting - 1]].rstrip()
    return None

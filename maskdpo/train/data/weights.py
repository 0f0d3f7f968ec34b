"""Sentence labels to token weights: the one place where labels become a mask.

A weight says how much a token counts in the loss; 0 leaves it out. Text, spans and labels are stored, masks never are,
so that one dataset serves every tokenizer (arXiv 2503.02846; the definition is in docs/method.md).
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdpo.registry import Registry
from maskdpo.schemas import RIGHT, WRONG, Label, PairSentence, Side

Row = Mapping[Label | None, float]
"""Weight of a sentence by its label; the key None stands for a sentence that was not judged."""

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""A token that is one byte of a character outside the vocabulary."""
A_BYTE = "<0x0A>"
"""One of them: a tokenizer has all or none."""

Offsets = Sequence[tuple[int, int]]
"""For every token the half-open range of characters that it covers; (i, i) for a token without text of its own."""

LAST_SPACE = 0x3000
IS_SPACE = np.array([chr(code).isspace() for code in range(LAST_SPACE + 2)])
"""By code point: whether it is white space; no character behind ``LAST_SPACE`` is."""


def row_of(*, right: float, no_fact: float, wrong: float, not_judged: float) -> Row:
    return {
        **dict.fromkeys(RIGHT, right),
        **dict.fromkeys(WRONG, wrong),
        Label.NO_FACT: no_fact,
        None: not_judged,
    }


ALL = row_of(right=1, no_fact=1, wrong=1, not_judged=1)
RIGHT_ONLY = row_of(right=1, no_fact=1, wrong=0, not_judged=0)
WRONG_ONLY = row_of(right=0, no_fact=0, wrong=1, not_judged=0)
STRICTLY_RIGHT = row_of(right=1, no_fact=0, wrong=0, not_judged=0)
NOT_RIGHT = row_of(right=0, no_fact=1, wrong=1, not_judged=0)


class Method(NamedTuple):
    """Which sentences train: weights by label for each side. One of your own: ``--method ./file.py:object``."""

    chosen: Row
    rejected: Row
    by_confidence: bool = False
    """Whether a sentence counts its entry in the table times the confidence of its label."""

    def row(self, side: Side) -> Row:
        return self.chosen if side == "chosen" else self.rejected


def _problem_of_a_method(found: object) -> str | None:
    if not isinstance(found, Method):
        return f"is no Method, but {type(found).__name__}"
    for row in (found.chosen, found.rejected):
        if not (
            isinstance(row, Mapping) and set(row) == set(ALL) and all(0 <= weight < inf for weight in row.values())
        ):
            return "chosen and rejected must be rows as row_of makes them, with finite weights of 0 or more"
    return None


METHODS: Registry[Method] = Registry(
    "method",
    {
        "mask-dpo": Method(RIGHT_ONLY, WRONG_ONLY),
        "dpo": Method(ALL, ALL),
        "chosen-only": Method(RIGHT_ONLY, ALL),
        "rejected-only": Method(ALL, WRONG_ONLY),
        "strict": Method(STRICTLY_RIGHT, NOT_RIGHT),
        "soft": Method(RIGHT_ONLY, WRONG_ONLY, by_confidence=True),
    },
    check=_problem_of_a_method,
)
"""The methods, each a table of weights by side and label. Another table is another method.

``chosen-only`` and ``rejected-only`` name the side that is masked; the other one counts in full, as in DPO.
``strict`` treats sentences that state no fact as wrong: Mask-DPO alone lets them grow (docs/evidence-closed-world.md).
"""


def sentence_weight(sentence: PairSentence, row: Row, *, by_confidence: bool = False) -> float:
    """What a sentence counts: its label's entry in the table, with ``by_confidence`` times the label's confidence.

    A label without a confidence counts in full: most judges give none, and half a weight would be a guess.
    """
    weight = row[sentence.label]
    return weight * sentence.confidence if by_confidence and sentence.confidence is not None else weight


@dataclass(frozen=True)
class Rendered:
    """What follows the prompt, as the text that is tokenised; the response, from which spans count, is
    ``text[start:end]``."""

    text: str
    start: int
    end: int


def token_weights(
    rendered: Rendered,
    offsets: Offsets | NDArray[np.int64],
    sentences: Sequence[PairSentence],
    row: Row,
    *,
    by_confidence: bool = False,
) -> NDArray[np.float32]:
    """The weight of every token behind the prompt.

    - A token takes the minimum over the sentences that its non-space characters belong to.
    - Text of the response outside every sentence counts as ``no_fact``.
    - A token of white space only takes the minimum of its nearest neighbours within the response.
    - A token with any other character outside the response, or without text of its own, has weight 0.

    Args:
        rendered: the text that was tokenised; spans of ``sentences`` count from ``rendered.start``.
        offsets: [T, 2] character ranges of the tokens.
        sentences: labelled spans of the response; one that reaches beyond it is clipped.
        row: the weights of this side.
        by_confidence: see ``sentence_weight``.

    Returns:
        [T] float32.
    """
    offsets_T2 = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    start_T, end_T = offsets_T2.T
    inside_T = np.maximum(start_T, rendered.start) < np.minimum(end_T, rendered.end)
    if not inside_T.any():
        return np.zeros(len(offsets_T2), dtype=np.float32)
    weight_of_char = np.append(_char_weights(rendered, sentences, row, by_confidence), np.float32(np.nan))
    # From start to end, from there to the next start, and so on: every other one is a token.
    weights = np.where(inside_T, np.fmin.reduceat(weight_of_char, offsets_T2.ravel())[::2], np.float32(0))
    blank = np.flatnonzero(np.isnan(weights))  # tokens of white space only, inside the response
    solid = np.flatnonzero(inside_T & ~np.isnan(weights))  # tokens with other text, inside the response
    if not len(solid):
        weights[blank] = row[Label.NO_FACT]
    elif len(blank):
        at = np.searchsorted(solid, blank)
        before, after = solid[np.maximum(at - 1, 0)], solid[np.minimum(at, len(solid) - 1)]
        weights[blank] = np.minimum(weights[before], weights[after])
    return weights


def exact_offsets(
    tokens: Sequence[str] | None, offsets: Offsets, text: str, *, takes_apart: bool = False
) -> list[tuple[int, int]]:
    """The characters that each token really stands for, where tokenizers report others.

    - A tokenizer that spells unknown characters in bytes (``<0xE5>``) may report the range of a whole run of them for
      each byte: the bytes are counted through.
    - A tokenizer that joins a letter and its accents (NFC) reports the letter alone: the accents are added.
    - A tokenizer that takes ligatures apart (NFKC) may join the last letter of one to the accent behind it, and reports
      the accent alone: all tokens of the two stand for both.

    Args:
        tokens: the tokens by name; None where the tokenizer has none that are bytes.
        takes_apart: whether it is such a tokenizer.

    Raises:
        ValueError: the bytes of a run do not spell its characters.
    """
    exact = list(offsets) if tokens is None else _counted_through(tokens, offsets, text)
    if not has_marks(text):
        return exact
    next_begin = len(text)
    for i, (begin, end) in reversed(list(enumerate(exact))):
        if end > begin:
            exact[i] = (begin, _behind_marks(text, end, next_begin))
            next_begin = begin if i and exact[i - 1][0] < begin else next_begin
    for start, stop in _accented_ligatures(text) if takes_apart else ():
        exact = [(min(b, start), max(e, stop)) if start < e and b < min(e, stop) else (b, e) for b, e in exact]
    return exact


def has_marks(text: str) -> bool:
    """Whether a text holds combining marks, such as accents that are characters of their own."""
    return not text.isascii() and any(map(unicodedata.combining, text))


def _counted_through(tokens: Sequence[str], offsets: Offsets, text: str) -> list[tuple[int, int]]:
    exact: list[tuple[int, int]] = []
    for (begin, end), group in groupby(zip(offsets, tokens, strict=True), key=lambda item: item[0]):
        run = [BYTE.fullmatch(token) if token != text[begin:end] else None for _, token in group]
        if end - begin > 1 and all(run):
            exact += _ranges_of_bytes(bytes(int(byte[1], 16) for byte in run if byte), text, begin, end)
        else:
            exact += [(begin, end)] * len(run)
    return exact


def _ranges_of_bytes(run: bytes, text: str, begin: int, end: int) -> list[tuple[int, int]]:
    for spelled in (text[begin:end], text[begin:end].replace(" ", "▁")):
        if run == spelled.encode(errors="surrogatepass"):
            return [(begin + i, begin + i + 1) for i, c in enumerate(spelled) for _ in c.encode(errors="surrogatepass")]
    raise ValueError(f"the bytes of a token do not spell {text[begin:end]!r}")


def _behind_marks(text: str, end: int, limit: int) -> int:
    """Where the combining marks behind ``end`` are over that no token reports; ``limit``: where the next one begins."""
    while end < limit and unicodedata.combining(text[end]):
        end += 1
    return end


def _accented_ligatures(text: str) -> Iterator[tuple[int, int]]:
    """The ranges of a character that NFKC takes apart, with the combining marks that its last letter is joined to."""
    whole = partial(unicodedata.normalize, "NFKC")
    for start in range(len(text) - 1):
        if unicodedata.combining(text[start + 1]) and len(whole(text[start])) > 1:
            run = text[start : _behind_marks(text, start + 1, len(text))]
            joined = next(n for n in range(1, len(run) + 1) if whole(run) == whole(run[:n]) + whole(run[n:]))
            if joined > 1:
                yield start, start + joined


def _char_weights(
    rendered: Rendered, sentences: Sequence[PairSentence], row: Row, by_confidence: bool
) -> NDArray[np.float32]:
    """[characters] the weight of every character; NaN for white space, which has no say."""
    weights = np.zeros(len(rendered.text), dtype=np.float32)
    weights[rendered.start : rendered.end] = row[Label.NO_FACT]
    for sentence in sentences:
        start, end = (min(rendered.start + at, rendered.end) for at in (sentence.start, sentence.end))
        weights[start:end] = sentence_weight(sentence, row, by_confidence=by_confidence)
    codes = np.frombuffer(rendered.text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    weights[IS_SPACE[np.minimum(codes, LAST_SPACE + 1)]] = np.nan
    return weights


def desensitise(weights: NDArray[np.float32], shared: int, alpha: float) -> NDArray[np.float32]:
    """LD-DPO (arXiv 2409.06411): the tokens beyond the length of the shorter answer count ``alpha`` times their weight.

    log pi(y) = log pi(y[:l]) + alpha log pi(y[l:] | y[:l]), with l = min(|y_chosen|, |y_rejected|) in tokens, whether
    masked or not.

    Args:
        weights: [T] of an answer alone, without its prompt.
        shared: l.
    """
    return np.concatenate([weights[:shared], np.float32(alpha) * weights[shared:]])

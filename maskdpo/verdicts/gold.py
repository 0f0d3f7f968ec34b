"""Judged sentences beside gold sentences."""

from collections.abc import Iterable

from maskdpo.schemas import Sentence


def overlapping(sentences: Iterable[Sentence], wanted: Sentence) -> Sentence | None:
    """The sentence that shares most characters with ``wanted``, if it shares any."""
    best, most = None, 0
    for sentence in sentences:
        shared = min(sentence.end, wanted.end) - max(sentence.start, wanted.start)
        if shared > most:
            best, most = sentence, shared
    return best

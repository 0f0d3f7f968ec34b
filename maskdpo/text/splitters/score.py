"""Precision and recall of the sentence ends that a splitter finds, on texts whose sentences are marked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maskdpo.text.splitters.base import Splitter


@dataclass(frozen=True, slots=True)
class BoundaryScore:
    """Counts of sentence ends over texts. Only ends are compared: list markers before a sentence do not matter."""

    found: int
    expected: int
    both: int
    exact: int
    """Texts all of whose ends are right."""
    texts: int

    @property
    def precision(self) -> float:
        return self.both / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.both / self.expected if self.expected else 0.0

    @property
    def f1(self) -> float:
        total = self.found + self.expected
        return 2 * self.both / total if total else 0.0


def sentence_ends(text: str, sentences: Sequence[str]) -> set[int]:
    """Where the given sentences end in ``text``; each is searched for after the one before.

    Raises:
        ValueError: a sentence is not in the text.
    """
    ends = set()
    at = 0
    for sentence in sentences:
        at = text.index(sentence, at) + len(sentence)
        ends.add(at)
    return ends


def score(splitter: Splitter, marked: Iterable[tuple[str, str, Sequence[str]]]) -> BoundaryScore:
    """The score over ``(text, language, sentences)``."""
    found = expected = both = exact = texts = 0
    for text, language, sentences in marked:
        got = {span.end for span in splitter.split(text, language)}
        want = sentence_ends(text, sentences)
        found, expected, both = found + len(got), expected + len(want), both + len(got & want)
        exact, texts = exact + (got == want), texts + 1
    return BoundaryScore(found, expected, both, exact, texts)

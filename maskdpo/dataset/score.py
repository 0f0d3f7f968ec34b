"""How factual an answer is, as one number: the scores of ``build-pairs``. docs/pairs.md says what each rewards."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from maskdpo.registry import Registry, problem_of_a_function
from maskdpo.schemas import Sentence, group_of


class WeightedCounts(NamedTuple):
    """Number of sentences per group, or the sum of their confidences."""

    right: float = 0
    wrong: float = 0
    no_fact: float = 0
    not_judged: float = 0

    @property
    def judged(self) -> float:
        return self.right + self.wrong + self.no_fact

    @property
    def total(self) -> float:
        return self.judged + self.not_judged


Score = Callable[[WeightedCounts], float | None]
"""None where the score is not defined for an answer."""


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


SCORES: Registry[Score] = Registry(
    "score",
    {
        "right-of-all": lambda c: _share(c.right, c.total),
        "right-of-judged": lambda c: _share(c.right, c.judged),
        "precision": lambda c: _share(c.right, c.right + c.wrong),
        "anah": lambda c: _share(c.judged - c.wrong, c.judged),  # 1 - wrong/judged
        "difference": lambda c: c.right - c.wrong,
    },
    check=problem_of_a_function,
)
"""To add a score: a function and a line here."""


def is_bounded(name: str) -> bool:
    """Whether a score is known to lie between 0 and 1."""
    return name in SCORES.ours and name != "difference"


def by_confidence(sentences: Iterable[Sentence]) -> WeightedCounts:
    """Sentences per group, each counted with its confidence, or as 1 where it has none."""
    sums = dict.fromkeys(WeightedCounts._fields, 0.0)
    for sentence in sentences:
        sums[group_of(sentence.label)] += 1.0 if sentence.confidence is None else sentence.confidence
    return WeightedCounts(**sums)


def score_of(counts: WeightedCounts, name: str) -> float | None:
    """The score of this name, or None where it is not defined for an answer.

    Scores are rounded, so that scores that should be equal compare as equal.
    """
    score = SCORES[name](counts)
    return None if score is None else round(score, 9)

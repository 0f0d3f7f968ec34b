"""How factual an answer is, as one number: the rules that ``--score`` knows. docs/pairs.md says what each rewards."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from maskdpo.registry import Registry
from maskdpo.schemas import Sentence, group_of


class Tally(NamedTuple):
    """Sentences by group, as whole numbers or weighted by confidence."""

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


Score = Callable[[Tally], float | None]
"""None where the rule says nothing of such an answer."""


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


SCORES: Registry[Score] = Registry(
    "score",
    {
        "right-of-all": lambda t: _share(t.right, t.total),
        "right-of-judged": lambda t: _share(t.right, t.judged),
        "precision": lambda t: _share(t.right, t.right + t.wrong),
        "anah": lambda t: _share(t.judged - t.wrong, t.judged),  # 1 - wrong/judged
        "difference": lambda t: t.right - t.wrong,
    },
)
"""To add a score: a function and a line here."""


def is_bounded(name: str) -> bool:
    """Whether a score is known to lie between 0 and 1."""
    return name in SCORES.ours and name != "difference"


def by_confidence(sentences: Iterable[Sentence]) -> Tally:
    """Sentences by group, where one counts with its confidence if it has one, else as 1."""
    sums = dict.fromkeys(Tally._fields, 0.0)
    for sentence in sentences:
        sums[group_of(sentence.label)] += 1.0 if sentence.confidence is None else sentence.confidence
    return Tally(**sums)


def score_of(tally: Tally, name: str) -> float | None:
    """The score by its name, or None where it says nothing of such an answer.

    Rounded, so that answers that score the same also compare the same.
    """
    score = SCORES[name](tally)
    return None if score is None else round(score, 9)

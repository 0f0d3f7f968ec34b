"""Agreement with gold labels, sentence by sentence: in three classes, and over the four labels of ANAH.

A gold ``hallucination`` does not say in which way a sentence is wrong, so the first figures take all wrong labels as
one class. Where the gold labels say it, the same figures follow over the four labels of ANAH (arXiv 2405.20315).
All figures but the coverage are of the sentences that were judged, so the coverage belongs to each of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdpo.evaluate.probabilities import Probabilities, probabilities
from maskdpo.schemas import Annotation, Label, group_of
from maskdpo.verdicts import confusion
from maskdpo.verdicts.confusion import Tables
from maskdpo.verdicts.estimate import BELOW_ONE, SHARE, Estimate, over_topics
from maskdpo.verdicts.gold import Drawn, Match, describing, matches

CLASSES = ("right", "wrong", "no_fact")
ANAH_LABELS = ("no_hallucination", "contradictory", "unverifiable", "no_fact")

Pairs = list[tuple[str, str | None, float]]
"""Per sentence the gold class, the judged class (None: not judged) and the weight."""


class ClassFigures(NamedTuple):
    """Figures of one class over the judged sentences; NaN where the divisor is 0."""

    precision: float
    recall: float
    f1: float
    support: int
    """Judged sentences with this gold class."""


@dataclass(frozen=True)
class ClassAgreement:
    """Agreement over one set of classes."""

    classes: tuple[str, ...]
    figures: dict[str, Estimate]
    """By name in ``FIGURES``, with 95% intervals over topics."""
    majority: str
    """The most frequent gold class of the judged sentences."""
    baseline: dict[str, float]
    """The figures of a judge that always gives the class ``majority``."""
    per_class: dict[str, ClassFigures]
    confusion: NDArray[np.int64]
    """[gold, judged] in the order of ``classes``; the last column: not judged."""

    @property
    def sentences(self) -> int:
        return int(self.confusion.sum())

    @property
    def judged(self) -> int:
        return int(self.confusion[:, :-1].sum())

    @property
    def coverage(self) -> float:
        """Judged sentences / all gold sentences."""
        return self.judged / self.sentences


@dataclass(frozen=True)
class Agreement:
    """The agreement of labels with gold labels."""

    gold_answers: int
    not_annotated: int
    """Gold answers without an annotation of the same text; their sentences count as not judged."""
    other_text: int
    """Those of them whose id was annotated with another text."""
    three: ClassAgreement
    """Over ``CLASSES``."""
    four: ClassAgreement | None
    """Over ``ANAH_LABELS``; None where no gold label says in which way a sentence is wrong, or where none of these
    sentences was judged. ``hallucination`` is not one of the four: as a gold label it is left out, as a label of the
    judge it counts as not judged."""
    probabilities: Probabilities | None
    """None where no sentence that is right or wrong in gold has ``scores``."""
    topics: int
    """With a gold sentence that was judged; the intervals are over these."""
    chosen: int = 0
    """Gold sentences that are left out: others were drawn at random, these were not."""


def agreement(
    annotations: Iterable[Annotation],
    gold: Mapping[str, Annotation],
    topics: Mapping[str, str] | None = None,
    drawn: Drawn = "recorded",
) -> Agreement | None:
    """Compare with gold labels by the id of the answer; sentences with other spans are matched by overlap.

    Where gold sentences were drawn at random, only these count, each with 1 / the probability of its draw
    (``verdicts.gold.describing``). Numbers of sentences are plain counts.

    Args:
        gold: by id.
        topics: by the id of a prompt; without one, the prompt is its own topic.
        drawn: how the gold sentences were drawn.

    Returns:
        None where no gold sentence was judged.
    """
    wanted = {name: answer for name, answer in gold.items() if any(s.label is not None for s in answer.sentences)}
    found = [annotation for annotation in annotations if annotation.id in wanted]
    annotated = {a.id for a in found if wanted[a.id].response == a.response}
    missing = [answer.model_copy(update={"sentences": []}) for name, answer in wanted.items() if name not in annotated]
    every = list(matches([*found, *missing], wanted, topics))
    counted = describing(every, drawn)
    by_topic = _by_topic(counted)
    three = _class_agreement([_by_class(labels) for labels in by_topic.values()], CLASSES)
    if three is None:
        return None
    finer = any(g in (Label.CONTRADICTORY, Label.UNVERIFIABLE) for labels in by_topic.values() for g, _, _ in labels)
    four = _class_agreement([_by_label(labels) for labels in by_topic.values()], ANAH_LABELS) if finer else None
    judged = sum(any(said is not None for _, said, _ in labels) for labels in by_topic.values())
    return Agreement(
        gold_answers=len(wanted),
        not_annotated=len(wanted) - len(annotated),
        other_text=len(found) - len(annotated),
        three=three,
        four=four,
        probabilities=probabilities(counted),
        topics=judged,
        chosen=len(every) - len(counted),
    )


Labels = tuple[Label, Label | None, float]
"""The gold label, the judge's label and the weight of a sentence."""


def _by_topic(matched: Iterable[Match]) -> dict[str, list[Labels]]:
    labels: dict[str, list[Labels]] = defaultdict(list)
    for one in matched:
        if one.gold.label is not None:
            labels[one.topic].append((one.gold.label, one.sentence.label if one.sentence else None, one.weight))
    return labels


def _by_class(labels: Iterable[Labels]) -> Pairs:
    return [(group_of(gold), group_of(judged) if judged else None, weight) for gold, judged, weight in labels]


def _by_label(labels: Iterable[Labels]) -> Pairs:
    return [(gold, said if said in ANAH_LABELS else None, w) for gold, said, w in labels if gold in ANAH_LABELS]


def _class_agreement(topics: Sequence[Pairs], classes: tuple[str, ...]) -> ClassAgreement | None:
    """The agreement over ``classes``; None where nothing was judged."""
    from sklearn.metrics import precision_recall_fscore_support  # late: it takes two seconds

    every = [pair for pairs in topics for pair in pairs]
    judged = [(gold, said, weight) for gold, said, weight in every if said is not None]
    if not judged:
        return None
    mean = sum(weight for *_, weight in judged) / len(judged)  # alpha counts labels: weights have the mean 1
    rows = [(str(i), *pair[:2], pair[2] / mean) for i, pairs in enumerate(topics) for pair in pairs if pair[1]]
    tables = confusion.by_topic(rows, classes, classes)
    of_class = tables.sum((0, 2))
    majority = classes[int(of_class.argmax())]
    always = np.outer(of_class, [name == majority for name in classes])
    truth, found, weights = zip(*judged, strict=True)
    scores = precision_recall_fscore_support(truth, found, labels=classes, zero_division=np.nan, sample_weight=weights)
    support = Counter(truth)
    return ClassAgreement(
        classes=classes,
        figures={name: over_topics(figure, tables, BOUNDS[name]) for name, figure in FIGURES.items()},
        majority=majority,
        baseline={name: float(figure(always)) for name, figure in FIGURES.items()},
        per_class={
            name: ClassFigures(float(p), float(r), float(f1), support[name])
            for name, p, r, f1, _ in zip(classes, *scores, strict=True)
        },
        confusion=confusion.by_topic([("", gold, said, 1.0) for gold, said, _ in every], classes, (*classes, None))[
            0
        ].astype(np.int64),
    )


FIGURES: dict[str, Callable[[Tables], Tables]] = {
    "accuracy": confusion.accuracy,
    "kappa": confusion.kappa,
    "alpha": confusion.alpha,
    "balanced_accuracy": confusion.balanced_accuracy,
    "macro_f1": confusion.macro_f1,
}
"""Figures of the tables of judged sentences.

- accuracy: sentences with the gold class / sentences.
- kappa (Cohen 1960): (p - e) / (1 - e), where p is the accuracy and e = sum over classes of the share of the class in
  gold times its share in the labels of the judge: the agreement of two raters who label at random with these shares.
- alpha (Krippendorff; nominal): 1 - observed / expected disagreement, where both raters are drawn from one pool of
  labels. The units are the gold sentences. A sentence that was not judged is missing data of the judge: one label is no
  pair to compare, so the unit is left out of both disagreements, and its gold label out of the pool. So missing
  verdicts neither lower nor raise alpha; the coverage shows them.
- balanced_accuracy (Brodersen et al. 2010): mean of the recall over the classes that occur in gold.
- macro_f1: mean of F1 over the classes that occur in gold.

kappa and alpha are NaN where gold and judge have the same single class for all sentences.
"""
BOUNDS = dict.fromkeys(FIGURES, SHARE) | {"kappa": BELOW_ONE, "alpha": BELOW_ONE}

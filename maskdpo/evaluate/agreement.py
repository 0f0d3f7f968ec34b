"""Agreement with gold labels, sentence by sentence: in three classes, and over the four labels of ANAH.

A gold ``hallucination`` does not say in which way a sentence is wrong, so the first figures take all wrong labels as
one class. Where the gold labels say it, the same figures follow over the four labels of ANAH (arXiv 2405.20315).
All figures but the coverage are of the sentences that were judged, so the coverage belongs to each of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import krippendorff
import numpy as np
from numpy.typing import NDArray

from maskdpo.evaluate.probabilities import Probabilities, probabilities
from maskdpo.schemas import Annotation, Label, group_of
from maskdpo.verdicts import confusion
from maskdpo.verdicts.confusion import Tables
from maskdpo.verdicts.estimate import BELOW_ONE, SHARE, Estimate, over_topics
from maskdpo.verdicts.gold import Match, matches

CLASSES = ("right", "wrong", "no_fact")
ANAH_LABELS = ("no_hallucination", "contradictory", "unverifiable", "no_fact")

Pairs = list[tuple[str, str | None]]
"""Per sentence the gold class and the judged class; None: not judged."""


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


def agreement(
    annotations: Iterable[Annotation],
    gold: Mapping[str, Annotation],
    topics: Mapping[str, str] | None = None,
) -> Agreement | None:
    """Compare with gold labels by the id of the answer; sentences with other spans are matched by overlap.

    Args:
        gold: by id.
        topics: by the id of a prompt; without one, the prompt is its own topic.

    Returns:
        None where no gold sentence was judged.
    """
    wanted = {name: answer for name, answer in gold.items() if any(s.label is not None for s in answer.sentences)}
    found = [annotation for annotation in annotations if annotation.id in wanted]
    annotated = {a.id for a in found if wanted[a.id].response == a.response}
    matched = list(matches(found, wanted, topics))
    missing = [answer.model_copy(update={"sentences": []}) for name, answer in wanted.items() if name not in annotated]
    by_topic = _by_topic([*matched, *matches(missing, wanted, topics)])
    three = _class_agreement([_by_class(labels) for labels in by_topic.values()], CLASSES)
    if three is None:
        return None
    finer = any(g in (Label.CONTRADICTORY, Label.UNVERIFIABLE) for labels in by_topic.values() for g, _ in labels)
    four = _class_agreement([_by_label(labels) for labels in by_topic.values()], ANAH_LABELS) if finer else None
    judged = sum(any(said is not None for _, said in labels) for labels in by_topic.values())
    return Agreement(
        gold_answers=len(wanted),
        not_annotated=len(wanted) - len(annotated),
        other_text=len(found) - len(annotated),
        three=three,
        four=four,
        probabilities=probabilities(matched),
        topics=judged,
    )


def _by_topic(matched: Iterable[Match]) -> dict[str, list[tuple[Label, Label | None]]]:
    """The gold label and the judge's label of each sentence, by topic."""
    labels: dict[str, list[tuple[Label, Label | None]]] = defaultdict(list)
    for _, sentence, gold, topic in matched:
        if gold.label is not None:
            labels[topic].append((gold.label, sentence.label if sentence else None))
    return labels


def _by_class(labels: Iterable[tuple[Label, Label | None]]) -> Pairs:
    return [(group_of(gold), group_of(judged) if judged else None) for gold, judged in labels]


def _by_label(labels: Iterable[tuple[Label, Label | None]]) -> Pairs:
    return [(gold, judged if judged in ANAH_LABELS else None) for gold, judged in labels if gold in ANAH_LABELS]


def _class_agreement(topics: Sequence[Pairs], classes: tuple[str, ...]) -> ClassAgreement | None:
    """The agreement over ``classes``; None where nothing was judged."""
    from sklearn.metrics import precision_recall_fscore_support  # late: it takes two seconds

    if not topics:
        return None
    tables = np.stack([_confusion(pairs, classes) for pairs in topics])
    whole = tables.sum(0)
    if not whole[:, :-1].any():
        return None
    truth, found = zip(*(pair for pairs in topics for pair in pairs), strict=True)
    judged = [(t, f) for t, f in zip(truth, found, strict=True) if f is not None]
    count = Counter(t for t, _ in judged)
    majority = max(classes, key=lambda name: count[name])
    scores = precision_recall_fscore_support(*zip(*judged, strict=True), labels=classes, zero_division=np.nan)
    of_judge = tables[..., :-1].astype(np.float64)
    of_judge = of_judge[of_judge.any((1, 2))]  # topics with a judged sentence
    return ClassAgreement(
        classes=classes,
        figures={name: over_topics(figure, of_judge, BOUNDS[name]) for name, figure in FIGURES.items()},
        majority=majority,
        baseline=library_figures([t for t, _ in judged], [majority] * len(judged), classes),
        per_class={
            name: ClassFigures(float(p), float(r), float(f1), int(n))
            for name, p, r, f1, n in zip(classes, *scores, strict=True)
        },
        confusion=whole,
    )


def _confusion(pairs: Pairs, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """[gold, judged], with a last column for sentences that were not judged."""
    count = Counter(pairs)
    return np.array([[count[gold, judged] for judged in (*classes, None)] for gold in classes], dtype=np.int64)


def library_figures(truth: Sequence[str], found: Sequence[str | None], classes: tuple[str, ...]) -> dict[str, float]:
    """The figures of labels, computed by scikit-learn and krippendorff.

    - accuracy: judged sentences with the gold class / judged sentences.
    - kappa (Cohen 1960): (p - e) / (1 - e), where p is the accuracy and e = sum over classes of the share of the class
      in gold times its share in the labels of the judge: the agreement of two raters who label at random with these
      shares.
    - alpha (Krippendorff; nominal): 1 - observed / expected disagreement, where both raters are drawn from one pool of
      labels. The units are the gold sentences. A sentence that was not judged is missing data of the judge: one label
      is no pair to compare, so the unit is left out of both disagreements, and its gold label out of the pool.
      So missing verdicts neither lower nor raise alpha; the coverage shows them.
    - balanced_accuracy (Brodersen et al. 2010): mean of the recall over the classes that occur in gold.
    - macro_f1: mean of F1 over the classes that occur in gold.

    kappa and alpha are NaN where gold and judge have the same single class for all sentences.
    """
    from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, recall_score

    judged = [(t, f) for t, f in zip(truth, found, strict=True) if f is not None]
    gold, said = zip(*judged, strict=True)
    one_class = len({*gold, *said}) == 1
    code = {name: float(i) for i, name in enumerate(classes)}
    ratings = [[code[t] for t in truth], [np.nan if f is None else code[f] for f in found]]
    present = [name for name in classes if name in gold]
    return {
        "accuracy": float(accuracy_score(gold, said)),
        "kappa": np.nan if one_class else float(cohen_kappa_score(gold, said, labels=classes)),
        "alpha": np.nan if one_class else float(krippendorff.alpha(ratings, level_of_measurement="nominal")),
        "balanced_accuracy": float(recall_score(gold, said, labels=present, average="macro", zero_division=0)),
        "macro_f1": float(f1_score(gold, said, labels=present, average="macro", zero_division=0)),
    }


FIGURES: dict[str, Callable[[Tables], Tables]] = {
    "accuracy": confusion.accuracy,
    "kappa": confusion.kappa,
    "alpha": confusion.alpha,
    "balanced_accuracy": confusion.balanced_accuracy,
    "macro_f1": confusion.macro_f1,
}
"""The figures of ``library_figures`` as functions of confusion tables: the libraries are too slow for all topics."""
BOUNDS = dict.fromkeys(FIGURES, SHARE) | {"kappa": BELOW_ONE, "alpha": BELOW_ONE}

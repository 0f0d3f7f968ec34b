"""How well labels agree with gold ones, sentence by sentence, in three classes: right, wrong, no fact."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from maskdpo.evaluate.factuality import Estimate
from maskdpo.schemas import Annotation, Sentence, group_of

CLASSES = ("right", "wrong", "no_fact")
"""A gold ``hallucination`` does not say in which way a sentence is wrong, so the wrong labels are one class."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """Figures over the gold sentences that were judged; ``coverage`` is their share of all gold sentences."""

    gold_sentences: int
    judged: int
    accuracy: Estimate
    kappa: Estimate
    """Cohen's kappa."""
    macro_f1: float
    per_class: dict[str, tuple[float, float, float, int]]
    """Precision, recall, F1, number of gold sentences."""
    confusion: NDArray[np.int64]
    """[gold, judged] in the order of ``CLASSES``."""

    @property
    def coverage(self) -> float:
        return self.judged / self.gold_sentences if self.gold_sentences else 0.0


def agreement(annotations: Iterable[Annotation], gold: Mapping[str, Annotation], *, seed: int = 0) -> Agreement | None:
    """Compare with gold labels by answer id; gold sentences that are cut otherwise are matched by overlap.

    Returns:
        None where no gold sentence could be compared.
    """
    total = 0
    answers: list[list[tuple[str, str]]] = []  # (gold class, judged class) of the sentences of every answer
    for annotation in annotations:
        reference = gold.get(annotation.id)
        if reference is None or reference.response != annotation.response:
            continue
        labelled = [sentence for sentence in reference.sentences if sentence.label is not None]
        total += len(labelled)
        matched = ((sentence, overlapping(annotation.sentences, sentence)) for sentence in labelled)
        answers.append([(group_of(g.label), group_of(s.label)) for g, s in matched if g.label and s and s.label])
    answers = [answer for answer in answers if answer]
    if not answers:
        return None
    return _agreement(total, answers, seed)


def overlapping(sentences: Iterable[Sentence], wanted: Sentence) -> Sentence | None:
    """The sentence that shares most characters with ``wanted``, if it shares any."""
    best, most = None, 0
    for sentence in sentences:
        shared = min(sentence.end, wanted.end) - max(sentence.start, wanted.start)
        if shared > most:
            best, most = sentence, shared
    return best


def _agreement(total: int, answers: list[list[tuple[str, str]]], seed: int) -> Agreement:
    truth, found = zip(*(pair for answer in answers for pair in answer), strict=True)
    precision, recall, f1, support = precision_recall_fscore_support(truth, found, labels=CLASSES, zero_division=0)
    per_class = {
        name: (float(precision[i]), float(recall[i]), float(f1[i]), int(support[i])) for i, name in enumerate(CLASSES)
    }
    present = [i for i in range(len(CLASSES)) if support[i]]
    # [answers, gold, judged]: whole answers are drawn, since the sentences of one depend on each other
    tables = np.stack([confusion_matrix(*zip(*answer, strict=True), labels=CLASSES) for answer in answers])
    rng = np.random.default_rng(seed)
    draws = [tables[rng.integers(len(tables), size=len(tables))].sum(0) for _ in range(RESAMPLES)]
    return Agreement(
        gold_sentences=total,
        judged=len(truth),
        accuracy=_interval(
            float(np.mean([t == f for t, f in zip(truth, found, strict=True)])), [_accuracy(d) for d in draws]
        ),
        kappa=_interval(_kappa(tables.sum(0)), [_kappa(d) for d in draws]),
        macro_f1=float(np.mean(f1[present])),
        per_class=per_class,
        confusion=tables.sum(0),
    )


def _interval(value: float, samples: list[float]) -> Estimate:
    low, high = (np.nan, np.nan) if np.isnan(samples).all() else np.nanquantile(samples, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _accuracy(table: NDArray[np.int64]) -> float:
    return float(np.trace(table) / table.sum())


def _kappa(table: NDArray[np.int64]) -> float:
    """Cohen's kappa of a confusion table (the library takes label lists only)."""
    shares = table / table.sum()
    chance = float(shares.sum(0) @ shares.sum(1))
    return float("nan") if chance == 1 else (float(np.trace(shares)) - chance) / (1 - chance)

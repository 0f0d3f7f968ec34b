"""Figures of labels as functions of confusion tables, for many tables at once."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from maskdpo.verdicts.estimate import ratio

Tables = NDArray[np.float64]
"""[..., gold, judged]: confusion tables; or [...]: one figure per table."""


T = TypeVar("T")


def by_topic(rows: Iterable[tuple[str, T, T, float]], gold: Sequence[T], judged: Sequence[T]) -> Tables:
    """[topics, gold, judged]: the confusion table of each topic, sums of weights.

    Args:
        rows: topic, class in gold, class of the judge and weight of each sentence.
        gold, judged: the classes, in the order of the table.
    """
    rows = list(rows)
    topics = {topic: i for i, topic in enumerate(dict.fromkeys(topic for topic, *_ in rows))}
    tables = np.zeros((len(topics), len(gold), len(judged)))
    for topic, true, said, weight in rows:
        tables[topics[topic], gold.index(true), judged.index(said)] += weight
    return tables


def _diagonal(tables: Tables) -> Tables:
    return np.diagonal(tables, axis1=-2, axis2=-1)


def accuracy(tables: Tables) -> Tables:
    return ratio(_diagonal(tables).sum(-1), tables.sum((-2, -1)))


def balanced_accuracy(tables: Tables) -> Tables:
    """The mean recall of the classes that gold has (Brodersen et al. 2010): a judge that always says the same has
    1 / number of classes."""
    gold = tables.sum(-1)
    recall = np.where(gold > 0, ratio(_diagonal(tables), gold), 0)
    return ratio(recall.sum(-1), (gold > 0).sum(-1).astype(np.float64))


def kappa(tables: Tables) -> Tables:
    """Cohen 1960."""
    total = tables.sum((-2, -1))
    chance = ratio((tables.sum(-1) * tables.sum(-2)).sum(-1), total**2)
    return ratio(accuracy(tables) - chance, 1 - chance)


def alpha(tables: Tables) -> Tables:
    """Krippendorff. Two raters give 2N labels, n_c of them of class c:
    1 - (2N - 1) 2 (N - agreed) / ((2N)^2 - sum of n_c^2)."""
    total = tables.sum((-2, -1))
    pool = tables.sum(-1) + tables.sum(-2)
    differing = 2 * (total - _diagonal(tables).sum(-1))
    return 1 - ratio((2 * total - 1) * differing, (2 * total) ** 2 - (pool**2).sum(-1))


def macro_f1(tables: Tables) -> Tables:
    """The mean F1 of the classes that gold has."""
    gold, said = tables.sum(-1), tables.sum(-2)
    f1 = np.where(gold > 0, ratio(2 * _diagonal(tables), gold + said), 0)
    return ratio(f1.sum(-1), (gold > 0).sum(-1).astype(np.float64))


def precision(tables: Tables, given: int) -> Tables:
    """Of the sentences that got the label of column ``given``, the share that has it in gold."""
    return ratio(tables[..., given, given], tables[..., given].sum(-1))

"""``maskdpo agree``: how far people agree with each other and with the judge.

Figures are of sentences that were drawn at random, each weighed by 1 / its probability, so that they describe the
answers and not what was chosen for people. Intervals are over topics.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskdpo import __version__
from maskdpo.io import atomic_write
from maskdpo.people.sentences import Decided, decided, differing, refuse_none
from maskdpo.people.settings import AgreeSettings
from maskdpo.schemas import Decision, Label, group_of
from maskdpo.schemas.labels import Group
from maskdpo.verdicts import confusion
from maskdpo.verdicts.confusion import Tables
from maskdpo.verdicts.estimate import BELOW_ONE, SHARE, Estimate, over_topics
from maskdpo.verdicts.people import read_decisions

CLASSES: tuple[Group, ...] = ("right", "wrong", "no_fact")
LABELS = tuple(Label)


class Figures(NamedTuple):
    """How far two or more sources of labels agree, over the same sentences."""

    sentences: int
    topics: int
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class AgreeResult:
    """What the command prints."""

    reviewers: dict[str, int]
    """Sentences that each has labelled."""
    skipped: dict[str, int]
    decided: int
    """Sentences with a label of somebody."""
    shared: int
    """Of them those with labels of several people."""
    counted: int
    """Of them those whose probability is known, or all with ``all_sentences``."""
    differing: list[Decided]
    """Sentences with different labels that nobody has settled, of all queues."""
    people: Figures | None
    """``alpha`` over all labels and over the three classes, and for each label against all others; None: no sentence
    that counts has labels of several people."""
    pairs: dict[tuple[str, str], Figures]
    """Of every two reviewers with sentences in common: ``kappa`` and ``accuracy`` over the labels."""
    judge: dict[str, Figures]
    """People against the judge in three classes, by whether its label was shown before the decision or hidden."""

    def write_json(self, out: Path) -> None:
        """Write the figures as JSON, unrounded; null where a figure is undefined."""
        values = {
            "version": __version__,
            "reviewers": self.reviewers,
            "skipped": self.skipped,
            "sentences": {"decided": self.decided, "by_several": self.shared, "counted": self.counted},
            "differing": [
                {"answer_id": one.first.answer_id, "start": one.first.start, "end": one.first.end, "labels": one.given}
                for one in self.differing
            ],
            "people": _values(self.people) if self.people else None,
            "pairs": [{"reviewers": list(pair), **_values(found)} for pair, found in self.pairs.items()],
            "judge": {shown: _values(found) for shown, found in self.judge.items()},
        }
        with atomic_write(out) as file:
            file.write(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def _values(found: Figures) -> dict[str, Any]:
    figures = {
        name: {key: None if math.isnan(x) else x for key, x in vars(estimate).items()}
        for name, estimate in found.figures.items()
    }
    return {"sentences": found.sentences, "topics": found.topics, "figures": figures}


class Rated(NamedTuple):
    """The labels of one sentence that counts, and its weight: 1 / the probability with which it was drawn."""

    sentence: Decided
    weight: float


def agree(settings: AgreeSettings) -> AgreeResult:
    """The agreement of all decisions that count.

    Raises:
        UserError: bad input, or no decision that counts.
    """
    decisions = read_decisions(settings.decisions)
    refuse_none(decisions, settings.decisions)
    return agreement_of(decisions, all_sentences=settings.all_sentences)


def agreement_of(decisions: Iterable[Decision], *, all_sentences: bool = False) -> AgreeResult:
    """The agreement of decisions, the older before the newer.

    A reviewer who decides a drawn sentence again in another queue has seen more by then: figures take what was said
    when the sentence was drawn.
    """
    every = list(decisions)
    labelled = [one for one in decided(every) if one.labels]
    counted = [Rated(one, 1.0) for one in labelled] if all_sentences else _drawn(every)
    shared = [rated for rated in counted if len(rated.sentence.labels) > 1]
    reviewers = sorted({name for one in labelled for name in one.by_reviewer})
    return AgreeResult(
        reviewers=dict(Counter(name for one in labelled for name in one.by_reviewer)),
        skipped=dict(Counter(name for one in decided(every) for name in one.skipped_by)),
        decided=len(labelled),
        shared=sum(len(one.labels) > 1 for one in labelled),
        counted=len(counted),
        differing=differing(decided(every)),
        people=_alphas(shared) if shared else None,
        pairs={pair: found for pair in combinations(reviewers, 2) if (found := _pair(shared, pair))},
        judge=_against_judge(counted),
    )


def _drawn(decisions: Sequence[Decision]) -> list[Rated]:
    """The sentences that one queue has drawn at random, with the labels given in it: of two such queues, that with more
    sentences by several people, for two draws have no common probability."""
    undos = [one for one in decisions if one.act == "undo"]
    found = []
    for queue in ("random", "stratified"):
        made = [one for one in decisions if one.queue == queue and one.act != "undo" and not one.adjudicates]
        of_queue = [one for one in decided([*made, *undos]) if one.labels]
        found.append([Rated(one, 1 / one.draws[queue]) for one in of_queue])
    return max(found, key=lambda rated: (sum(len(one.sentence.labels) > 1 for one in rated), len(rated)))


def _alphas(shared: Sequence[Rated]) -> Figures:
    """Krippendorff's alpha (nominal): over the labels, the classes, and for each label against all others."""
    tables = _coincidences(shared)  # [topics, label, label]
    groups = [[i for i, label in enumerate(LABELS) if group_of(label) == name] for name in CLASSES]
    used = [i for i in range(len(LABELS)) if tables[:, i].any()]
    figures = {
        "labels": over_topics(confusion.alpha, tables, BELOW_ONE),
        "classes": over_topics(confusion.alpha, _merged(tables, groups), BELOW_ONE),
    }
    for i in used:
        others = [j for j in range(len(LABELS)) if j != i]
        figures[LABELS[i].value] = over_topics(confusion.alpha, _merged(tables, [[i], others]), BELOW_ONE)
    return Figures(len(shared), len(tables), figures)


def _coincidences(shared: Sequence[Rated]) -> Tables:
    """[topics, label, label]: half the coincidence matrix of each topic (Krippendorff 2011, Computing Krippendorff's
    Alpha-Reliability): every two labels of a sentence with m labels count 1 / (m - 1), times the weight of the
    sentence, where all weights have the mean 1."""
    mean = sum(rated.weight for rated in shared) / len(shared)
    rows = []
    for sentence, weight in shared:
        share = weight / mean / (len(sentence.labels) - 1) / 2
        rows += [(sentence.topic, one, other, share) for one, other in permutations(sentence.labels, 2)]
    return confusion.by_topic(rows, LABELS, LABELS)


def _pair(shared: Sequence[Rated], pair: tuple[str, str]) -> Figures | None:
    both = [rated for rated in shared if all(name in rated.sentence.by_reviewer for name in pair)]
    if not both:
        return None
    labels = [[sentence.by_reviewer[name].label for name in pair] for sentence, _ in both]
    rows = [(rated.sentence.topic, one, other, rated.weight) for rated, (one, other) in zip(both, labels, strict=True)]
    tables = confusion.by_topic(rows, LABELS, LABELS)
    return Figures(len(both), len(tables), _kappa(tables))


def _against_judge(counted: Sequence[Rated]) -> dict[str, Figures]:
    """Every label of a person beside that of the judge, in three classes: apart by whether the person saw it."""
    rows: dict[str, list[tuple[str, Group, Group, float]]] = defaultdict(list)
    for sentence, weight in counted:
        for decision in sentence.by_reviewer.values():
            if decision.judged is not None and decision.label is not None:
                shown = {True: "label shown", False: "label hidden", None: "unknown whether shown"}[decision.shown]
                rows[shown].append((sentence.topic, group_of(decision.label), group_of(decision.judged), weight))
    found = {}
    for shown in sorted(rows):
        tables = confusion.by_topic(rows[shown], CLASSES, CLASSES)
        found[shown] = Figures(len(rows[shown]), len(tables), _kappa(tables))
    return found


def _kappa(tables: Tables) -> dict[str, Estimate]:
    return {
        "accuracy": over_topics(confusion.accuracy, tables, SHARE),
        "kappa": over_topics(confusion.kappa, tables, BELOW_ONE),
    }


def _merged(tables: Tables, groups: Sequence[Sequence[int]]) -> Tables:
    """[topics, groups, groups] of [topics, labels, labels]."""
    belongs = np.zeros((len(groups), tables.shape[-1]))
    for i, members in enumerate(groups):
        belongs[i, list(members)] = 1
    merged: Tables = belongs @ tables @ belongs.T
    return merged

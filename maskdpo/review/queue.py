"""The queue: which sentences people are asked about, in which order, and with which probability each came into it.

The population are all sentences that state something to check. Every queue follows from the inputs and the seed alone,
so that all reviewers have the same one, and a reviewer goes on in it.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np

from maskdpo.errors import UserError
from maskdpo.review.others import Others
from maskdpo.schemas import WITHOUT_CLAIM, Annotation, JudgeInfo, Kind, Prompt, Queue, Sentence, Status
from maskdpo.verdicts.decision import classes

Draw = np.random.Generator
T = TypeVar("T")
UNLABELLED = "not judged"
NOT_ASKED = WITHOUT_CLAIM | {Kind.FRAGMENT}
"""Kinds of sentences that no judge is asked about, and people neither."""


class Candidate(NamedTuple):
    """A sentence that may come into the queue."""

    answer_id: str
    start: int
    stratum: str
    topic: str
    certainty: float | None
    """How sure the judge is of the class of its label; None: nothing is known."""
    adjudicates: tuple[str, ...] | None
    """With other labels beside those of the judge: the reviewers who differ; None: nobody does, or it is settled."""


class Chosen(NamedTuple):
    """A sentence of the queue, by its answer and the start of its span."""

    answer_id: str
    start: int
    blind: bool
    adjudicates: tuple[str, ...]


@dataclass(frozen=True)
class ReviewQueue:
    """The sentences of a queue, in their order."""

    name: Queue
    chosen: list[Chosen]
    population: int
    """Sentences that could have come into it."""
    chances: Mapping[str, float] = field(default_factory=dict)
    """By stratum, the probability with which its sentences came into the queue; empty: they were not drawn."""

    def inclusion(self, sentences: Iterable[Sentence]) -> float | None:
        """The probability that any of these sentences came into the queue: 1 - the product of all (1 - p).

        More than one are a sentence that a reviewer has joined, which would have been joined from either of its parts.
        """
        if not self.chances:
            return None
        drawn = [self.chances[stratum_of(one)] for one in sentences if one.kind not in NOT_ASKED]
        return drawn[0] if len(drawn) == 1 else 1.0 - math.prod(1.0 - chance for chance in drawn)


def stratum_of(sentence: Sentence) -> str:
    return UNLABELLED if sentence.label is None else sentence.label.value


def certainty(sentence: Sentence, judge: JudgeInfo | None) -> float | None:
    """The calibrated probability of the class of the label; without a calibration that of the judge's own scores.

    A sentence whose verdict was too weak for a label has 0, one without a verdict, or without any probability, None.
    """
    if sentence.status is Status.UNSURE:
        return 0.0
    if sentence.label is None:
        return None
    if sentence.scores and not (judge and judge.calibration):
        return max(classes(sentence.scores).values())
    return sentence.confidence


def candidates(
    annotations: Iterable[Annotation], prompts: Mapping[str, Prompt], others: Others | None = None
) -> list[Candidate]:
    """The population. Headings, code, torn ends and answers without a reference are not in it: no judge was asked about
    them, and people would have nothing to compare them with."""
    topics: dict[str, str] = {}
    found = []
    for annotation in annotations:
        prompt_id = annotation.prompt_id
        topic = topics.setdefault(prompt_id, topics.get(prompt_id) or prompts[prompt_id].shared_topic)
        for one in annotation.sentences:
            if one.kind not in NOT_ASKED and one.status is not Status.NO_REFERENCE:
                differ = others.who_differ(annotation, one) if others else None
                sure = certainty(one, annotation.judge)
                found.append(Candidate(annotation.id, one.start, stratum_of(one), topic, sure, differ))
    return found


def make_queue(name: Queue, population: Sequence[Candidate], *, limit: int, blind: float, seed: int) -> ReviewQueue:
    """Choose the sentences of a queue, put them in order, and draw those that are decided blind.

    Args:
        limit: sentences at most.
        blind: the share of sentences that are decided blind.

    Raises:
        UserError: there is no sentence to choose, or ``limit`` is less than the number of strata.
    """
    if not population:
        raise UserError("the annotations have no sentence that states something to check")
    draw, draw_blind = np.random.default_rng(seed).spawn(2)
    chosen, chances = CHOOSE[name](population, limit, draw)
    hidden = set(draw_blind.permutation(len(chosen))[: round(blind * len(chosen))].tolist())
    items = [Chosen(one.answer_id, one.start, i in hidden, one.adjudicates or ()) for i, one in enumerate(chosen)]
    return ReviewQueue(name, items, len(population), chances)


Choice = tuple[list[Candidate], dict[str, float]]


def _random(population: Sequence[Candidate], limit: int, draw: Draw) -> Choice:
    """n of N, all with the same probability n / N."""
    chosen = _shuffled(population, draw)[:limit]
    return chosen, dict.fromkeys({one.stratum for one in population}, len(chosen) / len(population))


def _stratified(population: Sequence[Candidate], limit: int, draw: Draw) -> Choice:
    """n_h of the N_h sentences with each label h: all n_h are equal, as far as there are as many sentences.

    Within a label every sentence has the probability n_h / N_h, and topics have their shares: the sentences stand in a
    row, topic by topic in a random order, and every (N_h / n_h)-th is taken from a random start on.
    """
    strata: dict[str, list[Candidate]] = defaultdict(list)
    for one in population:
        strata[one.stratum].append(one)
    if limit < len(strata):
        raise UserError(f"`limit` must be at least {len(strata)}: the sentences have as many labels")
    sizes = allocate({name: len(members) for name, members in strata.items()}, limit)
    chosen = [one for name, members in strata.items() for one in _systematic(members, sizes[name], draw)]
    return _shuffled(chosen, draw), {name: sizes[name] / len(members) for name, members in strata.items()}


def allocate(available: Mapping[str, int], total: int) -> dict[str, int]:
    """Share ``total`` equally; what one has too few for goes to the others."""
    sizes: dict[str, int] = {}
    for place, name in enumerate(sorted(available, key=available.__getitem__)):
        sizes[name] = min(available[name], (total - sum(sizes.values())) // (len(available) - place))
    return sizes


def _systematic(members: Sequence[Candidate], size: int, draw: Draw) -> list[Candidate]:
    topics = {topic: place for place, topic in enumerate(_shuffled(sorted({one.topic for one in members}), draw))}
    row = sorted(_shuffled(members, draw), key=lambda one: topics[one.topic])
    step = len(row) / size
    start = draw.random()
    return [row[min(len(row) - 1, int((start + k) * step))] for k in range(size)]


def _uncertain(population: Sequence[Candidate], limit: int, draw: Draw) -> Choice:
    known = [one for one in _shuffled(population, draw) if one.certainty is not None]
    if not known:
        raise UserError("the judge gave no probabilities, so none of its labels is less certain; use another `queue`")
    return sorted(known, key=lambda one: one.certainty or 0.0)[:limit], {}


def _disagreement(population: Sequence[Candidate], limit: int, draw: Draw) -> Choice:
    differing = [one for one in population if one.adjudicates is not None]
    if not differing:
        raise UserError(
            "there is nothing to decide: the labels of `against` do not differ on any sentence, or a named person has "
            "settled where they do"
        )
    return _shuffled(differing, draw)[:limit], {}


def _shuffled(items: Sequence[T], draw: Draw) -> list[T]:
    return [items[place] for place in draw.permutation(len(items))]


CHOOSE: dict[Queue, Callable[[Sequence[Candidate], int, Draw], Choice]] = {
    "random": _random,
    "stratified": _stratified,
    "uncertain": _uncertain,
    "disagreement": _disagreement,
}

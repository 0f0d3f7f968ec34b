"""How factual the answers of a file are: figures per answer, with intervals over topics.

A model that states nothing that can be checked has the best ``1 - wrong/judged`` (the score of ANAH). So this figure is
never reported alone, but with the sentences that are right, wrong, without a fact and not judged, with the length, and
with the names, numbers and dates per answer, which are counted without a judge.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maskdpo.schemas import Annotation, Counts, Prompt
from maskdpo.text.claims.count import ClaimCounts, count_claims
from maskdpo.verdicts.estimate import AT_LEAST_0, SHARE, UNBOUNDED, Bounds, Estimate, over_topics, ratio

FIELDS = ("answers", *Counts._fields, "known_end", "cut_off", "characters", "penalised", *ClaimCounts._fields)
Sums = NDArray[np.float64]
"""[topics, FIELDS] or [FIELDS]: sums over answers."""
TopicSums = Mapping[str, Sums]
"""[FIELDS] of each topic."""
Figures = Mapping[str, Callable[[Sums], Sums]]


def _field(sums: Sums, *names: str) -> Sums:
    total: Sums = sum((sums[..., FIELDS.index(name)] for name in names), np.zeros(sums.shape[:-1]))
    return total


RIGHT_OF_ALL, PRECISION = "right / all sentences", "right / (right + wrong)"
RIGHT_PER_ANSWER, CLAIMS = "right sentences / answer", "names, numbers, dates / answer"
MAIN_FIGURES = (RIGHT_OF_ALL, PRECISION, RIGHT_PER_ANSWER)
"""Read together: a model that says nothing wins one of them alone."""

FIGURES: Figures = {
    RIGHT_PER_ANSWER: lambda s: ratio(_field(s, "right"), _field(s, "answers")),
    "wrong sentences / answer": lambda s: ratio(_field(s, "wrong"), _field(s, "answers")),
    "no-fact sentences / answer": lambda s: ratio(_field(s, "no_fact"), _field(s, "answers")),
    "not judged / answer": lambda s: ratio(_field(s, "not_judged"), _field(s, "answers")),
    RIGHT_OF_ALL: lambda s: ratio(_field(s, "right"), _field(s, "right", "wrong", "no_fact", "not_judged")),
    PRECISION: lambda s: ratio(_field(s, "right"), _field(s, "right", "wrong")),
    "1 - wrong / judged (ANAH)": lambda s: 1 - ratio(_field(s, "wrong"), _field(s, "right", "wrong", "no_fact")),
    "answers cut off": lambda s: ratio(_field(s, "cut_off"), _field(s, "known_end")),
    "characters / answer": lambda s: ratio(_field(s, "characters"), _field(s, "answers")),
    "names / answer": lambda s: ratio(_field(s, "names"), _field(s, "answers")),
    "numbers / answer": lambda s: ratio(_field(s, "numbers"), _field(s, "answers")),
    "dates / answer": lambda s: ratio(_field(s, "dates"), _field(s, "answers")),
    CLAIMS: lambda s: ratio(_field(s, *ClaimCounts._fields), _field(s, "answers")),
}


def _figures(length_penalty: int | None) -> Figures:
    if length_penalty is None:
        return FIGURES
    name = f"precision, length penalty {length_penalty}"
    return {**FIGURES, name: lambda s: ratio(_field(s, "penalised"), _field(s, "answers"))}


def _bounds(name: str) -> Bounds:
    return AT_LEAST_0 if name.endswith("/ answer") else SHARE


def penalised_precision(counts: Counts, gamma: int) -> float:
    """FActScore with its length penalty (Min et al. 2023, arXiv 2305.14251, and its authors' code) for one answer.

    right / n, where n = right + wrong, times exp(1 - gamma / n) where n < gamma. Sentences take the place of the atomic
    facts of FActScore. Without a right or wrong sentence the figure is 0, the limit of the penalty for n -> 0.
    FActScore leaves such answers out of its mean, which favours a model that answers only what it is sure of.
    """
    facts = counts.right + counts.wrong
    return counts.right / facts * math.exp(min(0.0, 1 - gamma / facts)) if facts else 0.0


@dataclass(frozen=True)
class Summary:
    """All figures of one file of annotations."""

    answers: int
    topics: int
    figures: dict[str, Estimate]


def _row(annotation: Annotation, length_penalty: int | None) -> Sums:
    counts = annotation.counts
    known_end, cut_off = annotation.finish_reason is not None, annotation.finish_reason == "length"
    penalised = penalised_precision(counts, length_penalty) if length_penalty is not None else 0.0
    claims = count_claims(annotation.response[s.start : s.end] for s in annotation.whole_sentences)
    values = [1, *counts, known_end, cut_off, len(annotation.response), penalised, *claims]
    return np.array(values, dtype=np.float64)


def sums_by_topic(
    annotations: Iterable[Annotation],
    prompts: Mapping[str, Prompt] | None = None,
    length_penalty: int | None = None,
) -> TopicSums:
    """What all figures of a file follow from. Topics are those of the prompts; without ``prompts`` every prompt is its
    own topic.

    Args:
        length_penalty: gamma of ``penalised_precision``; None leaves the figure out.
    """
    topics = {prompt.id: prompt.shared_topic for prompt in (prompts or {}).values()}
    sums: dict[str, Sums] = defaultdict(lambda: np.zeros(len(FIELDS)))
    for annotation in annotations:
        sums[topics.get(annotation.prompt_id, annotation.prompt_id)] += _row(annotation, length_penalty)
    return dict(sums)


def summarise(
    annotations: Iterable[Annotation],
    prompts: Mapping[str, Prompt] | None = None,
    *,
    length_penalty: int | None = None,
) -> Summary:
    """The figures of one file, whose arguments are those of ``sums_by_topic``."""
    return summary_of(sums_by_topic(annotations, prompts, length_penalty), length_penalty)


def summary_of(sums: TopicSums, length_penalty: int | None = None) -> Summary:
    """The figures of one file."""
    return _summary(np.stack(list(sums.values())), _figures(length_penalty))


def _summary(table: Sums, figures: Figures) -> Summary:
    estimates = {name: over_topics(figure, table, _bounds(name)) for name, figure in figures.items()}
    return Summary(int(table[:, 0].sum()), len(table), estimates)


@dataclass(frozen=True)
class Comparison:
    """The figures of two files over the topics that both have, and their paired differences."""

    before: Summary
    after: Summary
    difference: dict[str, Estimate]

    @property
    def won_by_filler(self) -> list[str]:
        """The shares of right sentences that have surely risen while answers surely name fewer names, numbers and
        dates: the model may have become right by saying less."""
        said = self.difference[CLAIMS]
        risen = (name for name in (RIGHT_OF_ALL, PRECISION) if self.difference[name].value > 0)
        return [name for name in risen if self.difference[name].sure] if said.sure and said.value < 0 else []


def compare(before: TopicSums, after: TopicSums, length_penalty: int | None = None) -> Comparison | None:
    """``after`` minus ``before``, topic by topic. None where the files share no topic."""
    shared = [topic for topic in before if topic in after]
    if not shared:
        return None
    figures = _figures(length_penalty)
    tables = [np.stack([sums[topic] for topic in shared]) for sums in (before, after)]
    both = np.stack(tables, axis=1)
    summaries = _summary(tables[0], figures), _summary(tables[1], figures)
    return Comparison(*summaries, {name: _difference(name, figures[name], both, summaries) for name in figures})


def _difference(name: str, figure: Callable[[Sums], Sums], both: Sums, summaries: tuple[Summary, Summary]) -> Estimate:
    """A difference rests on no more topics than either figure does."""
    found = over_topics(_change(figure), both, UNBOUNDED)
    return replace(found, topics=min(found.topics, *(summary.figures[name].topics for summary in summaries)))


def _change(figure: Callable[[Sums], Sums]) -> Callable[[Sums], Sums]:
    """A figure of [..., before and after, FIELDS]: how much it changes."""
    return lambda sums: figure(sums[..., 1, :]) - figure(sums[..., 0, :])

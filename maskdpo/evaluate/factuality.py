"""How factual the answers of a file are: figures per answer, with intervals over topics.

``1 - wrong/judged`` (ANAH's score) alone is won by a model that stops saying anything that can be checked, so it never
stands alone: what was right, wrong, without a fact and not judged, and the length, are always beside it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskdpo.schemas import Annotation, Counts, Prompt

FIELDS = ("answers", *Counts._fields, "cut_off", "characters")
Sums = NDArray[np.float64]
"""[topics, FIELDS] or [FIELDS]: sums over answers."""

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure with the 95% bootstrap interval over topics."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.value)} [{_short(self.low)}, {_short(self.high)}]" if not np.isnan(self.value) else "-"

    def signed(self) -> str:
        """For a difference: with signs, and a star where the interval leaves out 0."""
        if np.isnan(self.value):
            return "-"
        sure = self.low > 0 or self.high < 0
        return f"{_short(self.value, '+')} [{_short(self.low, '+')}, {_short(self.high, '+')}]{' *' if sure else ''}"


def _short(value: float, sign: str = "") -> str:
    """Three decimals for shares, fewer for larger figures."""
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 0
    return f"{value:{sign}.{decimals}f}"


def _field(sums: Sums, *names: str) -> Sums:
    total: Sums = sum((sums[..., FIELDS.index(name)] for name in names), np.zeros(sums.shape[:-1]))
    return total


def _ratio(above: Sums, below: Sums) -> Sums:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


METRICS: dict[str, Callable[[Sums], Sums]] = {
    "right sentences / answer": lambda s: _ratio(_field(s, "right"), _field(s, "answers")),
    "wrong sentences / answer": lambda s: _ratio(_field(s, "wrong"), _field(s, "answers")),
    "no-fact sentences / answer": lambda s: _ratio(_field(s, "no_fact"), _field(s, "answers")),
    "not judged / answer": lambda s: _ratio(_field(s, "not_judged"), _field(s, "answers")),
    "right / all sentences": lambda s: _ratio(_field(s, "right"), _field(s, "right", "wrong", "no_fact", "not_judged")),
    "right / (right + wrong)": lambda s: _ratio(_field(s, "right"), _field(s, "right", "wrong")),
    "1 - wrong / judged (ANAH)": lambda s: 1 - _ratio(_field(s, "wrong"), _field(s, "right", "wrong", "no_fact")),
    "answers cut off": lambda s: _ratio(_field(s, "cut_off"), _field(s, "answers")),
    "characters / answer": lambda s: _ratio(_field(s, "characters"), _field(s, "answers")),
}


@dataclass(frozen=True)
class Summary:
    """All figures of one file of annotations."""

    answers: int
    topics: int
    metrics: dict[str, Estimate]
    labels: Counter[str]


def _row(annotation: Annotation) -> Sums:
    cut_off = annotation.finish_reason == "length"
    return np.array([1, *annotation.counts, cut_off, len(annotation.response)], dtype=np.float64)


def _by_topic(annotations: Iterable[Annotation], topics: Mapping[str, str]) -> tuple[dict[str, Sums], Counter[str]]:
    sums: dict[str, Sums] = defaultdict(lambda: np.zeros(len(FIELDS)))
    labels: Counter[str] = Counter()
    for annotation in annotations:
        sums[topics.get(annotation.prompt_id, annotation.prompt_id)] += _row(annotation)
        labels.update(s.label.value if s.label else s.status.value for s in annotation.sentences)
    return dict(sums), labels


def _draws(topics: int, seed: int) -> Sums:
    """[RESAMPLES, topics] how often each topic is drawn: topics, not sentences, are what varies independently."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(topics, np.full(topics, 1 / topics), RESAMPLES).astype(np.float64)


def _estimate(point: Sums, samples: Sums) -> Estimate:
    low, high = (np.nan, np.nan) if np.isnan(samples).all() else np.nanquantile(samples, [0.025, 0.975])
    return Estimate(float(point), float(low), float(high))


def summarise(
    annotations: Iterable[Annotation], prompts: Mapping[str, Prompt] | None = None, *, seed: int = 0
) -> Summary:
    """Figures of one file. Topics are those of the prompts; without prompts every prompt is its own topic."""
    topics = {prompt.id: prompt.topic_or_id for prompt in (prompts or {}).values()}
    sums, labels = _by_topic(annotations, topics)
    table = np.stack(list(sums.values()))
    return _summary(table, _draws(len(table), seed) @ table, labels)


def _summary(table: Sums, resampled: Sums, labels: Counter[str]) -> Summary:
    metrics = {name: _estimate(f(table.sum(0)), f(resampled)) for name, f in METRICS.items()}
    return Summary(int(table[:, 0].sum()), len(table), metrics, labels)


@dataclass(frozen=True)
class Comparison:
    """Two files side by side, and their paired difference over the topics that both have."""

    before: Summary
    after: Summary
    difference: dict[str, Estimate]
    shared_topics: int


def compare(
    before: Iterable[Annotation],
    after: Iterable[Annotation],
    prompts: Mapping[str, Prompt] | None = None,
    *,
    seed: int = 0,
) -> Comparison | None:
    """``after`` minus ``before``, both drawn with the same topics; None where they share no topic."""
    topics = {prompt.id: prompt.topic_or_id for prompt in (prompts or {}).values()}
    sums_a, labels_a = _by_topic(before, topics)
    sums_b, labels_b = _by_topic(after, topics)
    shared = [topic for topic in sums_a if topic in sums_b]
    if not shared:
        return None
    tables = [np.stack([sums[topic] for topic in shared]) for sums in (sums_a, sums_b)]
    draws = _draws(len(shared), seed)
    resampled = [draws @ table for table in tables]
    summaries = [_summary(*parts) for parts in zip(tables, resampled, (labels_a, labels_b), strict=True)]
    difference = {
        name: _estimate(f(tables[1].sum(0)) - f(tables[0].sum(0)), f(resampled[1]) - f(resampled[0]))
        for name, f in METRICS.items()
    }
    return Comparison(summaries[0], summaries[1], difference, len(shared))

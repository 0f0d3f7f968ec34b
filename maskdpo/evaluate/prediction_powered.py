"""Prediction-powered estimates: the figures of a whole file, with the judge's errors taken out by gold on a part of it.

The judge has labelled every sentence of the file (labels f), people a sample of them (labels y). Sentence i came into
the sample with probability pi_i, known up to a factor; w_i = 1 / pi_i. A figure is a ratio of two means over sentences,

    theta = E a(y) / E b(y),    a = [right];    b = 1 for right / all, b = [right or wrong] for right / (right + wrong).

**Estimate.** Each mean is that of the gold labels, moved by what the judge knows beyond the sample. With m over all n
sentences, and g(x) = sum of w_i x_i over the sample / W, W = sum of w_i (Hajek's weighted mean, so that the factor
cancels):

    A = g(a(y)) + lam (m(a(f)) - g(a(f))),    B likewise,    theta = A / B                                          (1)

lam = 1 is prediction-powered inference (Angelopoulos et al. 2023, arXiv 2301.09633): the judge's mean plus the
*rectifier* g(a(y) - a(f)). lam = 0 is gold alone. PPI++ (arXiv 2311.01453) takes the lam of least variance, here
limited to [0, 1]: a judge who knows nothing then costs nothing.

**Variance.** Topics are independent of each other, sentences of one topic are not. (1) is linear in means, and topic k
moves A by its influence

    phi_k = sum of w_i (x_i - g(x)) / W over the gold sentences of k,    x = a(y) - lam a(f),
          + lam sum of (a(f_i) - m(a(f))) / n over all sentences of k.                                              (2)

So the covariance of (A, B) is S = G / (G - 1) sum over topics of phi phi^T, with G the number of topics with gold, the
scarcer part. (2) holds sampling of topics, of sentences and of whole answers together; a stratified sample is treated
as drawn with replacement, which makes its interval longer than it could be.

**Interval.** As in the papers, all theta that the estimating equation does not refute (for a ratio: Fieller 1954):

    |A - theta B| <= t sqrt(S_AA - 2 theta S_AB + theta^2 S_BB),    t: Student's 0.975 quantile, G - 1 degrees   (3)

This needs no linearisation of theta, which is poor where B rests on few gold sentences. Where b = 1 it is the plain t
interval.

**Known sentences.** Headings and code are no_fact by definition: no judge sees them, and people are not asked about
them. (1) is therefore about the other sentences, n of them, and the known ones join the divisor of right / all: with
h_k of them in topic k, B = 1 + sum of h / n, and B moves by (h_k - n_k sum of h / n) / n with topic k.

**Rare errors.** A small sample may hold none of the judge's errors, and (2) then says that there are none. As Agresti
and Min (2005, Statistics in Medicine 24:729) do for paired proportions, half a sentence is added for either error: it
moves nothing and adds 1 / n_eff^2 to the variance of A and of B, n_eff = W^2 / sum of w_i^2. Without it, 95% intervals
from 30 gold sentences and a judge with 20% one-sided errors covered the truth in 49 to 85% of draws (drawn by sentence
or by stratum, four shares of classes), with it in 95% or more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdpo.console import counted
from maskdpo.errors import UserError
from maskdpo.evaluate.factuality import PRECISION, RIGHT_OF_ALL
from maskdpo.schemas import WITHOUT_CLAIM, Annotation, Label, Sentence, group_of
from maskdpo.verdicts.estimate import Estimate
from maskdpo.verdicts.gold import Drawn, beside_gold, matches

FIELDS = (
    "sentences",
    "right",
    "wrong",
    "gold",
    "w",
    "w_squared",
    "gold_right",
    "gold_wrong",
    "said_right",
    "said_wrong",
    "known",
)
"""Sums over the sentences of a topic: of the judge over all but the known ones; over gold their number, w and w^2;
weighted with w, the gold labels and the labels that the judge gave to these sentences; the number of known ones."""
FIGURES = (RIGHT_OF_ALL, PRECISION)

TopicSums = Mapping[str, NDArray[np.float64]]
"""[FIELDS] by topic."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Powered:
    """The prediction-powered figures of one file."""

    gold_sentences: int
    """Gold sentences with a known probability that stand beside a sentence of the file that a judge has seen."""
    gold_topics: int
    figures: dict[str, Estimate]
    """By name in ``FIGURES``."""
    weight_of_judge: dict[str, float]
    """lam of each figure: 0 is gold alone, 1 trusts the judge to know all differences between sentences."""


@dataclass(frozen=True)
class PoweredComparison:
    """The prediction-powered figures of two files over the topics that both have."""

    before: Powered | str
    after: Powered | str
    """Or why there are none."""
    difference: dict[str, Estimate] | None
    """``after`` minus ``before``, by name in ``FIGURES``; None where one of the two has no figures."""


class _Ratio(NamedTuple):
    """A figure with what intervals need."""

    theta: float
    lam: float
    top: float
    bottom: float
    influence: Array
    """[2, topics]: on ``top`` and on ``bottom``."""
    rare: Array
    """[2, 2]: the variance that is added for errors that the sample does not show."""
    gold_topics: int
    rests_on: int
    """The topics whose gold sentences count in the figure: for right / (right + wrong) not those without a fact."""


def topic_sums(
    annotations: Iterable[Annotation],
    gold: Mapping[str, Annotation],
    topics: Mapping[str, str],
    drawn: Drawn = "recorded",
) -> dict[str, Array]:
    """[FIELDS] by topic, in the order of the file.

    Args:
        gold: gold answers by id; those of another text are left out.
        topics: topic by id of the prompt; a prompt that is not there is its own topic.
        drawn: ``recorded``: gold sentences without ``inclusion`` are left out; ``random``: all weigh the same.
    """
    sums: dict[str, Array] = {}
    for annotation in annotations:
        row = sums.setdefault(topics.get(annotation.prompt_id, annotation.prompt_id), np.zeros(len(FIELDS)))
        counts = annotation.counts
        known = sum(map(_known, annotation.sentences))
        row[:3] += len(annotation.whole_sentences) - known, counts.right, counts.wrong
        row[-1] += known
        for judged, sentence in beside_gold(matches([annotation], gold)):
            probability = 1.0 if drawn == "random" else sentence.inclusion
            if probability is not None and not _known(judged):
                row[3:-1] += _gold_row(judged, sentence, 1 / probability)
    return sums


def _known(sentence: Sentence) -> bool:
    """Whether the label follows from the kind of the span, without a judge."""
    return sentence.kind in WITHOUT_CLAIM and sentence.label is Label.NO_FACT


def _gold_row(judged: Sentence, gold: Sentence, w: float) -> Array:
    said, true = group_of(judged.label), group_of(gold.label)
    classes = (true == "right", true == "wrong", said == "right", said == "wrong")
    return np.array([1, w, w * w, *(w * one for one in classes)], dtype=np.float64)


def check_drawn(gold: Mapping[str, Annotation], drawn: Drawn, name: str) -> str | None:
    """Why a gold file cannot carry prediction-powered estimates; None where it can.

    Raises:
        UserError: it is said to be drawn with equal probabilities, and records others.
    """
    known = {s.inclusion for answer in gold.values() for s in answer.sentences if s.label is not None}
    if drawn == "random":
        if len(known - {None}) > 1:
            raise UserError(
                f"{name} records different probabilities in `inclusion`, so its sentences were not drawn with equal "
                "ones: leave out `gold_drawn`, and they are used as weights"
            )
        return None
    if known <= {None}:
        return (
            f"no prediction-powered estimates: {name} does not say how its sentences were drawn. They hold only for a "
            "random sample: if each sentence, or each whole answer, had the same chance, add --gold-drawn random; if "
            "the chances are known, write them into `inclusion` of each sentence"
        )
    return None


def powered(sums: TopicSums) -> Powered | str:
    """The figures of one file, or why there are none."""
    table = np.stack(list(sums.values()))
    _, _, _, gold, *_ = table.T
    topics = int((gold > 0).sum())
    if topics < 2:
        return (
            "no prediction-powered estimates: the gold sentences of known probability are of "
            f"{counted(topics, 'topic')}, at least 2 are needed"
        )
    ratios = {name: _ratio(table, name) for name in FIGURES}
    return Powered(
        int(gold.sum()),
        topics,
        {name: Estimate(r.theta, *_interval(r), r.rests_on) for name, r in ratios.items()},
        {name: r.lam for name, r in ratios.items()},
    )


def compare_powered(before: TopicSums, after: TopicSums) -> PoweredComparison:
    """The figures of two files over the topics of both, and their differences."""
    shared = [topic for topic in before if topic in after]
    before, after = ({topic: sums[topic] for topic in shared} for sums in (before, after))
    old, new = powered(before), powered(after)
    both = not isinstance(old, str) and not isinstance(new, str)
    return PoweredComparison(old, new, _differences(before, after) if both else None)


def _differences(before: TopicSums, after: TopicSums) -> dict[str, Estimate]:
    """``after`` minus ``before``, both [topics, FIELDS] over the same topics in the same order.

    The influences of both are linearised to those of the ratio, (phi_A - theta phi_B) / B, and subtracted topic by
    topic, so that what both share in a topic cancels.
    """
    tables = [np.stack(list(sums.values())) for sums in (before, after)]
    result = {}
    for name in FIGURES:
        old, new = (_ratio(table, name) for table in tables)
        topics = min(old.gold_topics, new.gold_topics)
        variance = topics / (topics - 1) * ((_slope(new) @ new.influence - _slope(old) @ old.influence) ** 2).sum()
        variance += sum(_slope(ratio) @ ratio.rare @ _slope(ratio) for ratio in (old, new))
        half = _quantile(topics) * float(np.sqrt(variance))
        value = new.theta - old.theta
        low, high = float(np.maximum(-1, value - half)), float(np.minimum(1, value + half))
        result[name] = Estimate(value, low, high, min(old.rests_on, new.rests_on))
    return result


def _slope(ratio: _Ratio) -> Array:
    return np.array([1.0, -ratio.theta]) / ratio.bottom


def _ratio(table: Array, name: str) -> _Ratio:
    n, right, wrong, gold, w, w_squared, gold_right, gold_wrong, said_right, said_wrong, known = table.T
    whole = name == RIGHT_OF_ALL
    truth = np.stack([gold_right, w if whole else gold_right + gold_wrong])
    said = np.stack([said_right, w if whole else said_right + said_wrong])
    judge = np.stack([right, n if whole else right + wrong])
    joined = np.stack([np.zeros_like(n), known if whole else np.zeros_like(n)])
    mean_truth = truth.sum(1) / w.sum() + joined.sum(1) / n.sum()
    by_gold = _influence(truth, w) + _influence(joined, n)
    mean_judge, by_judge = judge.sum(1) / n.sum() - said.sum(1) / w.sum(), _influence(judge, n) - _influence(said, w)
    lam = _tuned(mean_truth, by_gold, by_judge)
    top, bottom = (float(mean) for mean in mean_truth + lam * mean_judge)
    theta = min(1.0, max(0.0, top / bottom)) if bottom > 0 else np.nan
    rare = np.diag([1.0, 0.0 if whole else 1.0]) * (w_squared.sum() / w.sum() ** 2) ** 2
    counts = int((gold > 0).sum()), int((truth[1] > 0).sum())
    return _Ratio(theta, lam, top, bottom, by_gold + lam * by_judge, rare, *counts)


def _influence(sums: Array, size: Array) -> Array:
    """[2, topics]: what each topic adds to two means over ``size``; sums to 0."""
    influence: Array = (sums - size * (sums.sum(1, keepdims=True) / size.sum())) / size.sum()
    return influence


def _tuned(mean_truth: Array, by_gold: Array, by_judge: Array) -> float:
    """lam in [0, 1] of least variance of A - theta B, at the theta of gold alone."""
    if mean_truth[1] <= 0:
        return 1.0
    slope = np.array([1.0, -mean_truth[0] / mean_truth[1]])
    gold, judge = slope @ by_gold, slope @ by_judge
    spread = float(judge @ judge)
    return min(1.0, max(0.0, -float(gold @ judge) / spread)) if spread > 0 else 0.0


def _interval(ratio: _Ratio) -> tuple[float, float]:
    """The solutions of (3) within [0, 1]; all of it where gold cannot tell the divisor from 0."""
    if np.isnan(ratio.theta):
        return np.nan, np.nan
    topics, t = ratio.gold_topics, _quantile(ratio.gold_topics)
    cov = t * t * (topics / (topics - 1) * ratio.influence @ ratio.influence.T + ratio.rare)
    square, middle, rest = ratio.bottom**2 - cov[1, 1], ratio.top * ratio.bottom - cov[0, 1], ratio.top**2 - cov[0, 0]
    if square <= 0:
        return 0.0, 1.0
    root = float(np.sqrt(max(0.0, middle**2 - square * rest)))
    return max(0.0, float((middle - root) / square)), min(1.0, float((middle + root) / square))


def _quantile(topics: int) -> float:
    from scipy.stats import t  # late: it takes a second

    return float(t.ppf(0.975, topics - 1))

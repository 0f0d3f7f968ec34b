"""From the probabilities of labels beside each chunk of a reference to one verdict on a sentence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdpo.annotate.judge import Verdict
from maskdpo.classifier.spec import ClassifierSpec
from maskdpo.schemas import Label
from maskdpo.verdicts.decision import likeliest


def of_chunks(spec: ClassifierSpec, shares_CL: NDArray[Any]) -> tuple[dict[Label, float], int]:
    """The scores of a sentence out of its [C, L] probabilities beside C chunks, and the chunk that supports it most.

    The support is the maximum over chunks of the probability of ``no_hallucination``. Of the other labels,
    ``contradictory`` counts with its maximum over chunks, for one passage is enough to contradict a sentence, and every
    other label with its probability beside the best chunk; together they share what the support leaves.
    """
    by_label = {label: _sum(spec, shares_CL, label) for label in dict.fromkeys(each.label for each in spec.labels)}
    right_C = by_label[Label.NO_HALLUCINATION]
    best = int(right_C.argmax())
    support = float(right_C[best])
    weights = {
        label: float(shares_C.max() if label is Label.CONTRADICTORY else shares_C[best])
        for label, shares_C in by_label.items()
        if label is not Label.NO_HALLUCINATION
    }
    whole = sum(weights.values())
    scale = (1 - support) / whole if whole > 0 else 0.0
    return {Label.NO_HALLUCINATION: support, **{label: scale * weight for label, weight in weights.items()}}, best


def of_tokens(
    spec: ClassifierSpec, shares_CTL: NDArray[Any], offsets_T: Sequence[tuple[int, int]], span: tuple[int, int]
) -> tuple[dict[Label, float], int] | None:
    """The scores of a sentence out of [C, T, L] probabilities of the tokens of its answer, and its evidence's chunk.

    A token is as wrong as the chunk that supports it most says: it counts as invented only if every chunk says so. The
    sentence is as wrong as its worst token, or as its tokens on average (``spec.tokens``). None: it has no token.
    """
    mine = [t for t, (start, end) in enumerate(offsets_T) if start < span[1] and end > span[0] and end > start]
    if not mine:
        return None
    right_CT = _sum(spec, shares_CTL, Label.NO_HALLUCINATION)[:, mine]
    best_T = right_CT.argmax(0)
    worst = int(right_CT.max(0).argmin())
    shares_TL = shares_CTL[best_T, mine]
    shares_L = shares_TL[worst] if spec.tokens == "max" else shares_TL.mean(0)
    scores, _ = of_chunks(spec, shares_L[None])
    return scores, int(best_T[worst])


def decided(scores: dict[Label, float], evidence: str) -> Verdict:
    """The likeliest label of the likeliest class: right, all wrong labels together, or no_fact."""
    scores = {label: min(max(score, 0.0), 1.0) for label, score in scores.items()}
    label = likeliest(scores)
    return Verdict(label, confidence=scores[label], scores=scores, evidence=evidence or None)


def _sum(spec: ClassifierSpec, shares: NDArray[Any], label: Label) -> NDArray[Any]:
    return np.asarray(shares[..., [i for i, each in enumerate(spec.labels) if each.label is label]].sum(-1))

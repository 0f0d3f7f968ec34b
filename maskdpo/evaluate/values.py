"""Figures as JSON values: unrounded, null where a figure is undefined."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskdpo.evaluate.agreement import Agreement, ClassAgreement
from maskdpo.evaluate.factuality import Comparison, Summary
from maskdpo.evaluate.prediction_powered import Powered, PoweredComparison
from maskdpo.evaluate.probabilities import Probabilities
from maskdpo.io import atomic_write
from maskdpo.run_record import sha256_of
from maskdpo.verdicts.estimate import Estimate


def write(out: Path, annotations: Sequence[Path], others: Mapping[str, Path | None], found: Mapping[str, Any]) -> None:
    """Write a file of figures, atomically. It names its annotations with their hash, so that they are not taken for
    figures of other labels."""
    files, hashes = [str(file) for file in annotations], [sha256_of(file) for file in annotations]
    one = len(files) == 1
    values: dict[str, str | list[str] | None] = {"annotations": files[0] if one else files}
    values["annotations_sha256"] = hashes[0] if one else hashes
    values |= {name: str(file) if file else None for name, file in others.items()}
    with atomic_write(out) as file:
        file.write(json.dumps({**values, **found}, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def of_summary(summary: Summary) -> dict[str, Any]:
    return {"answers": summary.answers, "topics": summary.topics, "figures": _estimates(summary.figures)}


def of_comparison(result: Comparison) -> dict[str, Any]:
    return {
        "before": of_summary(result.before),
        "after": of_summary(result.after),
        "difference": _estimates(result.difference),
        "won_by_filler": result.won_by_filler,
    }


def of_main_figures(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    return {name: _estimates(figures) for name, figures in found.items()}


def of_powered(found: Powered | PoweredComparison | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"refused": found}
    if isinstance(found, Powered):
        return {
            "gold_sentences": found.gold_sentences,
            "gold_topics": found.gold_topics,
            "figures": _estimates(found.figures),
            "weight_of_judge": {name: _number(weight) for name, weight in found.weight_of_judge.items()},
        }
    return {
        "before": of_powered(found.before),
        "after": of_powered(found.after),
        "difference": _estimates(found.difference) if found.difference else None,
    }


def of_agreement(result: Agreement) -> dict[str, Any]:
    return {
        "gold_answers": result.gold_answers,
        "not_annotated": result.not_annotated,
        "other_text": result.other_text,
        "topics": result.topics,
        "three_classes": _classes(result.three),
        "four_labels": _classes(result.four) if result.four else None,
        "probabilities": _probabilities(result.probabilities) if result.probabilities else None,
    }


def _classes(found: ClassAgreement) -> dict[str, Any]:
    columns = (*found.classes, "not_judged")
    return {
        "gold_sentences": found.sentences,
        "judged": found.judged,
        "coverage": found.coverage,
        "figures": _estimates(found.figures),
        "baseline": {"always": found.majority, **{name: _number(value) for name, value in found.baseline.items()}},
        "per_class": {
            name: {"precision": _number(p), "recall": _number(r), "f1": _number(f1), "support": support}
            for name, (p, r, f1, support) in found.per_class.items()
        },
        "confusion": {
            name: dict(zip(columns, row.tolist(), strict=True))
            for name, row in zip(found.classes, found.confusion, strict=True)
        },
    }


def _probabilities(found: Probabilities) -> dict[str, Any]:
    return {
        "right": found.right,
        "wrong": found.wrong,
        "figures": _estimates(found.figures),
        "baseline": found.baseline,
        "reliability": [
            {"probability": one.probability, "share_right": _estimate(one.share), "sentences": one.sentences}
            for one in found.bins
        ],
    }


def _estimates(figures: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: _estimate(estimate) for name, estimate in figures.items()}


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    numbers = {name: _number(getattr(estimate, name)) for name in ("value", "low", "high")}
    return {**numbers, "topics": estimate.topics}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value

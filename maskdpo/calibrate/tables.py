"""What ``maskdpo calibrate`` prints."""

from collections.abc import Iterator

from maskdpo.calibrate.calibrate import Calibrated
from maskdpo.html.render import SummaryTable
from maskdpo.verdicts.decision import Calibration, Figure, Held
from maskdpo.verdicts.estimate import Estimate
from maskdpo.verdicts.figures import FIGURE_NAMES

NAMES = {
    "balanced_accuracy_right_wrong": "balanced accuracy, right against wrong",
    "balanced_accuracy": "balanced accuracy, three classes",
    "macro_f1": "macro F1",
    "kappa": "Cohen's kappa",
    "precision_right": "precision of right",
    "precision_wrong": "precision of wrong",
    "coverage": "coverage: share with a label",
    **FIGURE_NAMES,
}


def tables_of(result: Calibrated) -> Iterator[SummaryTable]:
    """The figures before and after, how probabilities and gold agree after, and the parameters."""
    calibration = result.calibration
    before, after = calibration.before, calibration.held_out
    assert before is not None and after is not None
    head = [
        ("gold sentences", f"{result.gold_sentences:,}", ""),
        ("of them with scores", f"{calibration.gold_sentences:,}", ""),
        *([("of them chosen, so in no figure", f"{result.chosen:,}", "")] if result.chosen else []),
        ("topics", f"{calibration.gold_topics:,}", ""),
    ]
    rows = [(name, _shown(before, key), _shown(after, key)) for key, name in NAMES.items()]
    yield SummaryTable(
        f"aim {calibration.aim}", ("with 95% intervals over topics", "before", "after, on held-out topics"), head + rows
    )
    yield SummaryTable(
        "reliability after, on held-out topics",
        ("P(right) among right and wrong", "share right in gold", "sentences"),
        [(f"{one.probability:.3f}", _text(one.share), f"{one.sentences:,}") for one in after.reliability],
    )
    yield SummaryTable("calibration", ("", "value"), list(_parameters(calibration)))


def _shown(held: Held, key: str) -> str:
    return _text(held.figures[key]) if key in held.figures else "-"


def _text(figure: Figure) -> str:
    value, low, high = (float("nan") if x is None else x for x in (figure.value, figure.low, figure.high))
    return str(Estimate(value, low, high))


def _parameters(calibration: Calibration) -> Iterator[tuple[str, str]]:
    used = calibration.parameters
    yield "temperature", f"{used.temperature:.3f}"
    for label, offset in used.offsets.items():
        yield f"offset of {label.value}", f"{offset:+.3f}"
    for name, weight in used.weights.items():
        yield f"weight of {name}", f"{weight:.3f}"
    for name, threshold in (used.thresholds or {}).items():
        yield f"least probability of {name}", "never given" if threshold is None else f"{threshold:.3f}"
    if used.abstain:
        yield "band of abstention", f"{used.abstain:.3f}"
    yield "hash", calibration.hash

"""Labels out of scores: the calibration of a judge, and the decision that follows from calibrated probabilities.

A judge's scores s_l say much about which sentence is more likely to be right, and little about how likely. They are
calibrated by one temperature T and an offset b_l per label (bias-corrected temperature scaling: Alexandari et al. 2020,
arXiv 1901.06852): p = softmax(z) with z_l = log(s_l) / T + b_l. Probability that the judge left unassigned (1 - sum of
its scores) is an outcome of its own with the offset 0, and no label ever gets it. T = 1 and b = 0 change nothing.
``verdicts.fitting`` finds T and b.
"""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError

from maskdpo.errors import InputError, UserError, first_problem
from maskdpo.io import open_bytes
from maskdpo.schemas import WRONG, JudgeInfo, Label, Record, Sentence, Status, group_of

Class = Literal["right", "wrong", "no_fact"]
CLASSES: tuple[Class, ...] = ("right", "wrong", "no_fact")

ROUNDING = 1e-3
"""An unassigned probability below this is taken to be none: judges round."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Figure(Record):
    """A figure with its 95% interval over topics; null where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


class ReliabilityBin(Record):
    """One point of a reliability plot, right against wrong."""

    probability: Probability
    share: Figure
    sentences: int


class Held(Record):
    """The figures of one set of labels and probabilities, over all gold sentences."""

    figures: dict[str, Figure]
    reliability: list[ReliabilityBin]


class Parameters(Record):
    """What turns scores into probabilities, and probabilities into a label."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    offsets: dict[Label, Number] = {}
    """By label, for every label that the judge gives scores to."""
    floor: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """The least score that is told apart from 0."""
    weights: dict[Class, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    """What the probability of a class is multiplied with before the greatest one wins; 1 where there is none. The aim
    ``balanced`` has 1 / the share of the class in gold (``verdicts.fitting``)."""
    thresholds: dict[Class, Probability | None] | None = None
    """The least probability with which a class is given; None: it is never given. Without thresholds all are 0."""
    abstain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Where the weighted probabilities of the two best classes, which sum to 1 over all classes, differ by less than
    this, there is no label."""

    def apply(self, scores: Mapping[Label, float]) -> dict[Label, float]:
        """The calibrated probabilities. Where nothing is unassigned, labels of the judge without a score have 0.

        So they have where votes are counted. A protocol that stops early says nothing of the labels that it has not
        asked about, and these get no probability.
        """
        left = 1.0 - sum(scores.values())
        known = scores if left > ROUNDING else dict.fromkeys(self.offsets, 0.0) | dict(scores)
        z = {label: self.logit(label, score) for label, score in known.items()}
        unassigned = math.log(left) / self.temperature if left > ROUNDING else -math.inf
        top = max(*z.values(), unassigned)
        total = sum(math.exp(value - top) for value in (*z.values(), unassigned))
        return {label: math.exp(value - top) / total for label, value in z.items()}

    def logit(self, label: Label, score: float) -> float:
        return math.log(max(score, self.floor)) / self.temperature + self.offsets.get(label, 0.0)

    def choose(self, scores: Mapping[Label, float]) -> tuple[Label | None, float]:
        """The label, or None where the probabilities are too weak for one; and the probability of its class.

        It is the probability of the class that masks and weights of training depend on: a sentence that is
        contradictory at .5 and unverifiable at .45 is wrong at .95. Within the class the likeliest label is given.
        """
        probabilities = self.apply(scores)
        of_class = classes(probabilities)
        weighted = {name: p * self.weights.get(name, 1.0) for name, p in of_class.items()}
        best, *others = sorted(weighted, key=weighted.__getitem__, reverse=True)
        total = sum(weighted.values())
        gap = (weighted[best] - (weighted[others[0]] if others else 0.0)) / total if total > 0 else 0.0
        threshold = self.thresholds.get(best, 0.0) if self.thresholds is not None else 0.0
        if gap < self.abstain or threshold is None or of_class[best] < threshold:
            return None, of_class[best]
        return likeliest({label: p for label, p in probabilities.items() if group_of(label) == best}), of_class[best]


class Calibration(Record):
    """The file that ``maskdpo calibrate`` writes, and that ``annotate`` and ``relabel`` apply."""

    format_version: Literal[1] = 1
    judge: JudgeInfo
    """The judge whose scores it is for, without what says how labels were made of them."""
    aim: str
    parameters: Parameters
    annotations_sha256: str = ""
    gold_sha256: str = ""
    gold_sentences: int = 0
    """Gold sentences with scores."""
    gold_topics: int = 0
    seed: int = 0
    before: Held | None = None
    """The labels and scores of the judge, against gold."""
    held_out: Held | None = None
    """The same for calibrated labels, each by a calibration that was fitted to other topics (cross-validation)."""

    @property
    def hash(self) -> str:
        """Of all that decides labels: the judge and the parameters."""
        decides = {"judge": self.judge.model_dump(mode="json"), "parameters": self.parameters.model_dump(mode="json")}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def classes(scores: Mapping[Label, float]) -> dict[Class, float]:
    """The sum of the scores of each class that has any."""
    found: dict[Class, float] = {}
    for label, score in scores.items():
        name = group_of(label)
        if name != "not_judged":
            found[name] = found.get(name, 0.0) + score
    return found


def likeliest(scores: Mapping[Label, float]) -> Label:
    """The label that scores stand for: the likeliest one of the likeliest class.

    Three classes are compared, not labels: with right .40, contradictory .25 and unverifiable .35 a sentence is wrong
    at .60. Of equal classes the first one of ``CLASSES`` is taken, of equal labels the first one of ``Label``.
    """
    of_class = classes(scores)
    best = max((name for name in CLASSES if name in of_class), key=of_class.__getitem__)
    return max((label for label in Label if label in scores and group_of(label) == best), key=scores.__getitem__)


def compatible(gold: Label, labels: Collection[Label]) -> list[Label]:
    """The labels of a judge that agree with a gold label.

    A gold label that says in which way a sentence is wrong agrees with itself and with ``hallucination``, and where the
    judge has neither of them with any wrong label; gold ``hallucination`` agrees with every wrong label.
    """
    if gold not in WRONG:
        return [gold] if gold in labels else []
    fine = [label for label in labels if label in (gold, Label.HALLUCINATION)]
    return fine if fine and gold is not Label.HALLUCINATION else [label for label in labels if label in WRONG]


@dataclass(frozen=True)
class Rule:
    """How labels follow from verdicts. Without a calibration, the judge's own label stands."""

    calibration: Calibration | None = None
    min_confidence: float | None = None
    source: Path | None = None
    """The file of the calibration, for the records of runs."""

    @cached_property
    def calibration_hash(self) -> str | None:
        return self.calibration.hash if self.calibration else None


class Decided(NamedTuple):
    """What is recorded of a sentence whose judge has answered."""

    label: Label | None
    status: Status
    confidence: float | None


def decide(label: Label | None, confidence: float | None, scores: Mapping[Label, float] | None, rule: Rule) -> Decided:
    """The label of a sentence by a rule.

    Args:
        label: the judge's own label; None: that of its scores (``likeliest``).
        confidence: the judge's own; None: the score of the label.

    Returns:
        The status ``ok``, or ``unsure`` without a label and a confidence. With a calibration the confidence is the
        calibrated probability of the label's class (``Parameters.choose``). The least confidence is compared with the
        probability of the label's class, calibrated or not, and without scores with the confidence. A verdict without
        scores keeps its label under a calibration, and one that also has no confidence keeps it under a least
        confidence: nothing is known that could weaken it.

    Raises:
        ValueError: neither a label nor scores.
    """
    if rule.calibration is not None and scores:
        label, confidence = rule.calibration.parameters.choose(scores)
        sure: float | None = confidence
    else:
        if label is None:
            if not scores:
                raise ValueError("a decision needs a label or scores")
            label = likeliest(scores)
        if confidence is None and scores:
            confidence = scores.get(label)
        sure = next((p for name, p in classes(scores or {}).items() if name == group_of(label)), confidence)
    weak = rule.min_confidence is not None and sure is not None and sure < rule.min_confidence
    if label is None or weak:
        return Decided(None, Status.UNSURE, None)
    return Decided(label, Status.OK, confidence)


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file.

    Raises:
        InputError: there is no such file, or it is none that ``maskdpo calibrate`` of this version writes.
    """
    with open_bytes(path) as file:
        content = file.read()
    try:
        return Calibration.model_validate_json(content)
    except ValidationError as error:
        field, message = first_problem(error)
        raise InputError(f"{message}; it is no file that maskdpo calibrate writes", path=path, field=field) from None


SCORES_DEPEND_ON = (
    "name", "model", "revision", "protocol", "protocol_hash", "votes", "template_options", "extra", "version",
)  # fmt: skip
"""Fields of ``JudgeInfo``. The splitter is none of them: it decides what is judged, not how."""


def scoring_judge(judge: JudgeInfo) -> JudgeInfo:
    """The judge without what does not change its scores."""
    return JudgeInfo(**{name: getattr(judge, name) for name in SCORES_DEPEND_ON})


def refuse_other_judge(calibration: Calibration, judge: JudgeInfo) -> None:
    """Refuse (``UserError``) a calibration that was made for another judge.

    One model may be in differently named folders, and the commit of a model on the Hub is known only once it is there.
    """
    made_for = calibration.judge
    same_files = judge.revision is not None and judge.revision == made_for.revision
    unknown = judge.model == made_for.model and None in (judge.revision, made_for.revision)
    alike = {"model"} if same_files else {"revision"} if unknown else set()
    differ = [
        f"{name}: {getattr(made_for, name)!r} there, {getattr(judge, name)!r} here"
        for name in SCORES_DEPEND_ON
        if getattr(made_for, name) != getattr(judge, name) and name not in alike
    ]
    if differ:
        raise UserError(
            f"the calibration was made for another judge ({'; '.join(differ)}); make one for this judge with "
            "`maskdpo calibrate`"
        )


def own_verdict(sentence: Sentence, judge: JudgeInfo) -> tuple[Label | None, float | None]:
    """Label and confidence of a sentence as its judge gave them, before any rule.

    Where a rule has replaced them, the label of the scores (``likeliest``) and its score. This is what a classifier
    gave. An LLM's label is its word: it is another one where no wrong label was as likely as right but all together
    are likelier, and where the turns of a protocol (``staged``) led elsewhere. Without scores, what is there.
    """
    replaced = sentence.status is Status.UNSURE or judge.calibration is not None
    if not replaced or not sentence.scores:
        return sentence.label, sentence.confidence
    label = likeliest(sentence.scores)
    return label, sentence.scores[label]

"""Labels by a rule (``verdicts.decision``): what ``annotate`` does behind the judge, and ``relabel`` without one."""

from pathlib import Path

from maskdpo.schemas import FAILED, NOT_ASKED, WITHOUT_CLAIM, JudgeInfo, Sentence, Status
from maskdpo.verdicts.decision import Rule, decide, own_verdict, read_calibration, refuse_other_judge

UNANSWERED = FAILED | NOT_ASKED

RAW = Rule()
"""The judge's own labels."""


def read_rule(calibration: Path | None, min_confidence: float | None) -> Rule:
    """The rule that the settings of a command name."""
    return Rule(read_calibration(calibration) if calibration else None, min_confidence, calibration)


def under(rule: Rule, judge: JudgeInfo) -> JudgeInfo:
    """The judge as it is recorded with labels that follow from a rule.

    Raises:
        UserError: the calibration was made for another judge.
    """
    if rule.calibration is not None:
        refuse_other_judge(rule.calibration, judge)
    return judge.model_copy(update={"calibration": rule.calibration_hash, "min_confidence": rule.min_confidence})


def decided(sentence: Sentence, rule: Rule, before: JudgeInfo | None = None) -> Sentence:
    """The sentence with the label that follows from a rule. One that the judge has not answered, or not
    been asked, stays as it is.

    Args:
        before: the judge as it is recorded with the sentence, if a rule may have replaced its own label.
    """
    if sentence.status in UNANSWERED or (sentence.kind in WITHOUT_CLAIM and not sentence.scores):
        return sentence
    own = own_verdict(sentence, before) if before else (sentence.label, sentence.confidence)
    says_so_itself = before is None and rule.calibration is None
    if own[0] is None and (says_so_itself or not sentence.scores):
        return sentence  # unsure
    label, status, confidence = decide(*own, sentence.scores, rule)
    scores = sentence.scores
    if status is Status.UNSURE and not scores and own[0] is not None and own[1] is not None:
        scores = {own[0]: own[1]}  # so that another rule can give the label back
    return sentence.model_copy(update={"label": label, "status": status, "confidence": confidence, "scores": scores})
